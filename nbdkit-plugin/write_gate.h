// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "nbdkit-plugin/page_bitmap.h"
#include "zodb/error.h"

// The two locks of an overlay's writers.

namespace zbig {

// Many writers pass at once; whoever wants a moment with no writer inside closes the gate. A closed
// gate lets nobody in, so writers that never pause can't keep it from closing (a std::shared_mutex
// may starve there).
class WriteGate {
 public:
  class Pass {
   public:
    explicit Pass(WriteGate& gate) : gate_(gate) {
      std::unique_lock lock(gate.mutex_);
      gate.changed_.wait(lock, [&] { return !gate.closed_; });  // by the closer, who is at work
      ++gate.inside_;
    }
    ~Pass() {
      std::lock_guard lock(gate_.mutex_);
      if (--gate_.inside_ == 0) gate_.changed_.notify_all();
    }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;

   private:
    WriteGate& gate_;
  };

  // One at a time: the owner's business. Throws Busy if a writer stays inside (its disk hangs).
  class Closed {
   public:
    explicit Closed(WriteGate& gate) : gate_(gate) {
      std::unique_lock lock(gate.mutex_);
      gate.closed_ = true;
      if (!gate.changed_.wait_for(lock, kPatience, [&] { return gate.inside_ == 0; })) {
        gate.closed_ = false;
        gate.changed_.notify_all();
        throw Busy("a write to the overlay does not end");
      }
    }
    ~Closed() {
      std::lock_guard lock(gate_.mutex_);
      gate_.closed_ = false;
      gate_.changed_.notify_all();
    }
    Closed(const Closed&) = delete;
    Closed& operator=(const Closed&) = delete;

   private:
    WriteGate& gate_;
  };

 private:
  static constexpr std::chrono::seconds kPatience{30};

  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint64_t inside_ = 0;
  bool closed_ = false;
};

// Locks pages for one writer, in groups of 64 (a word of the bitmap). Groups share the mutexes,
// which are taken in ascending order. There are more of them than requests at once, and a few less
// than ThreadSanitizer follows in one thread (64): a large request takes all of them.
class PageLocks {
 public:
  class Held {
   public:
    Held(PageLocks& locks, std::uint64_t first_page, std::uint64_t count) : locks_(locks) {
      const std::uint64_t first = first_page / PageBitmap::kWordPages;
      const std::uint64_t groups = (first_page + count - 1) / PageBitmap::kWordPages - first + 1;
      if (groups >= kMutexes) {
        ranges_ = {Range{0, kMutexes}, Range{0, 0}};
      } else {
        const std::uint64_t begin = first % kMutexes;
        const std::uint64_t end = begin + groups;
        ranges_ = {Range{0, end > kMutexes ? end - kMutexes : 0},
                   Range{begin, std::min(end, kMutexes)}};
      }
      for (const Range& range : ranges_) {
        for (std::uint64_t i = range.begin; i < range.end; ++i) locks_.mutexes_[i].lock();
      }
    }
    ~Held() {
      for (const Range& range : ranges_) {
        for (std::uint64_t i = range.begin; i < range.end; ++i) locks_.mutexes_[i].unlock();
      }
    }
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;

   private:
    struct Range {
      std::uint64_t begin = 0;
      std::uint64_t end = 0;
    };
    PageLocks& locks_;
    std::array<Range, 2> ranges_;
  };

 private:
  static constexpr std::uint64_t kMutexes = 56;
  std::array<std::mutex, kMutexes> mutexes_;
};

}  // namespace zbig
