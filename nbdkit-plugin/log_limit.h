// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>

// A device that cannot be read, and a program that goes on trying, would fill the disk with the
// server's log, which may be the disk that the device's uncommitted writes need. So of the failures
// of one second the first few are logged; the next line that is logged tells how many were not.

namespace zbig {

class LogLimit {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr unsigned kPerSecond = 10;

  // Nothing if a failure of now is not to be logged; or how many before it were not.
  std::optional<std::uint64_t> admit(Clock::time_point now) {
    const std::lock_guard lock(mutex_);
    if (now - begin_ >= std::chrono::seconds(1)) {
      begin_ = now;
      logged_ = 0;
    }
    if (logged_ == kPerSecond) {
      ++skipped_;
      return std::nullopt;
    }
    ++logged_;
    return std::exchange(skipped_, 0);
  }

 private:
  std::mutex mutex_;
  Clock::time_point begin_{};  // of the second
  unsigned logged_ = 0;        // in it
  std::uint64_t skipped_ = 0;
};

}  // namespace zbig
