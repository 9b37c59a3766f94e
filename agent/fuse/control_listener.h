// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <functional>
#include <string>

#include "agent/fd.h"
#include "agent/fuse/event_loop.h"

namespace zbig::fuse {

// The control socket: hands out each connection that comes in.
class ControlListener : public EventSource {
 public:
  // A socket that nobody listens on any more is replaced. Throws Busy, Invalid, Failed.
  ControlListener(EventLoop& loop, std::string path, std::function<void(Fd)> serve);
  // Takes the socket's file away.
  ~ControlListener() override;

  int fd() const override { return socket_.get(); }
  short events() const override;
  void on_ready(short revents) override;

 private:
  EventLoop& loop_;
  std::string path_;
  std::function<void(Fd)> serve_;
  Fd socket_;
};

}  // namespace zbig::fuse
