// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "zodb/bytes.h"

// Between a ZEO client and its server, on a port of its own: sees every message, and may keep it
// back, cut the line, or wait. Against a server that is no real one: answers as it is told.

namespace zbig::test {

class ZeoProxy {
 public:
  enum class Verdict {
    kPass,
    kDrop,
    kCut,  // the line, without passing it
    kPassAndCut
  };
  enum class Direction { kToServer, kToClient };
  // Called for each message (greetings too), from a thread of each direction of each connection.
  using Hook = std::function<Verdict(Direction, ByteView payload)>;

  // `server`: "127.0.0.1:8100".
  ZeoProxy(std::string server, Hook hook);
  ~ZeoProxy();

  std::string url() const;
  void cut();                // all connections of now
  void refuse(bool refuse);  // those to come
  int connections() const { return accepted_; }

 private:
  void accept(const std::stop_token& stop);
  void pipe(int from, int to, Direction direction);
  int connect() const;

  const std::string server_;
  const Hook hook_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<bool> refuse_ = false;
  std::atomic<int> accepted_ = 0;
  std::mutex mutex_;
  std::list<int> sockets_;         // guarded by mutex_
  std::list<std::jthread> pipes_;  // guarded by mutex_
  std::jthread acceptor_;
};

// Does the payload call `method`? (Encodings differ in all but the name.)
bool calls(ByteView payload, std::string_view method);

}  // namespace zbig::test
