// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <functional>
#include <memory>

namespace boost::asio {
class io_context;
}

// Loop: one thread on which everything about a server's connection happens, in order.

namespace zbig::zeo {

class Loop {
 public:
  // Starts the thread.
  Loop();
  // Ends it; what was posted and not done is dropped. Sockets must have gone by then: whoever keeps
  // a Channel must not outlive the Link.
  ~Loop();
  // Ends the thread only.
  void stop();

  // Any thread. Exceptions that an action throws abort the process: each catches its own.
  void post(std::function<void()> action);
  // Runs `action` after a while, unless the loop ended.
  void after(std::chrono::milliseconds delay, std::function<void()> action);

  boost::asio::io_context& context();

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace zbig::zeo
