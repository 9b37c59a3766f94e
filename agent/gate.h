// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>

#include "zodb/error.h"

// Gate: one operation at a time on a database, in the order of arrival. It is a lock that is meant
// to be held across I/O, so it is no mutex: who holds it can be asked, waiting for it can be
// called off, and its place in the lock order is before every mutex.
//
// A wait lasts as long as the operations before it, each of which has its own deadlines.

namespace zbig {

class Gate {
 public:
  class Pass {
   public:
    explicit Pass(Gate* gate) : gate_(gate) {}
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Pass& operator=(Pass&&) = delete;
    ~Pass() {
      if (gate_ != nullptr) gate_->leave();
    }

   private:
    Gate* gate_;
  };

  // Throws Unavailable if `stop` is requested first.
  [[nodiscard]] Pass enter(const std::string& operation, std::stop_token stop) {
    std::unique_lock lock(mutex_);
    const std::uint64_t ticket = next_ticket_++;
    if (!changed_.wait(lock, stop, [&] { return served_ == ticket; })) {
      // The ticket is never handed in: those behind it are called off by the same stop.
      throw Unavailable("the agent is stopping");
    }
    holder_ = operation;
    return Pass(this);
  }
  std::optional<Pass> try_enter(const std::string& operation) {
    const std::lock_guard lock(mutex_);
    if (served_ != next_ticket_) return std::nullopt;
    ++next_ticket_;
    holder_ = operation;
    return Pass(this);
  }
  // The operation under way, or empty.
  std::string holder() const {
    const std::lock_guard lock(mutex_);
    return holder_;
  }

 private:
  void leave() {
    const std::lock_guard lock(mutex_);
    ++served_;
    holder_.clear();
    changed_.notify_all();
  }

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::uint64_t next_ticket_ = 0;  // guarded by mutex_, as all below
  std::uint64_t served_ = 0;
  std::string holder_;
};

}  // namespace zbig
