// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <optional>
#include <vector>

// The one thread that serves: it waits until one of a few descriptors is ready, and tells its
// owner. There are some ten of them (the kernel's FUSE device, NBD connections, control clients),
// and libnbd changes its mind about reading or writing at almost every turn: poll(2) fits better
// than epoll here.

namespace zbig::fuse {

using Clock = std::chrono::steady_clock;

class EventSource {
 public:
  EventSource() = default;
  EventSource(const EventSource&) = delete;
  EventSource& operator=(const EventSource&) = delete;
  virtual ~EventSource() = default;

  // Asked before each wait: the descriptor (-1: none at present) and the poll(2) events wanted.
  virtual int fd() const = 0;
  virtual short events() const = 0;
  virtual void on_ready(short revents) = 0;
  // When to call on_deadline, if nothing happens before.
  virtual std::optional<Clock::time_point> deadline() const { return {}; }
  virtual void on_deadline() {}
};

// Sources may be added and removed from within their callbacks; a source removes itself before it
// is destroyed.
class EventLoop {
 public:
  void add(EventSource& source) { sources_.push_back(&source); }
  void remove(EventSource& source);
  // One turn: waits, then calls whoever is ready or due.
  void turn();

 private:
  std::vector<EventSource*> sources_;  // nullptr: removed during this turn
};

// Ends a turn of the loop at a certain time, even if nothing happens.
class Alarm : public EventSource {
 public:
  Alarm(EventLoop& loop, Clock::time_point when) : loop_(loop), when_(when) { loop_.add(*this); }
  ~Alarm() override { loop_.remove(*this); }
  int fd() const override { return -1; }
  short events() const override { return 0; }
  void on_ready(short) override {}
  std::optional<Clock::time_point> deadline() const override { return when_; }

 private:
  EventLoop& loop_;
  Clock::time_point when_;
};

}  // namespace zbig::fuse
