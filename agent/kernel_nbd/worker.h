// SPDX-License-Identifier: BSD-3-Clause
//
// Worker: system calls that may wait for a server for ever, made so that their callers do not.
//
// An fsync of a block device waits in the kernel without any timeout, and no signal ends it. A
// Worker makes such calls on a thread of its own, one after the other; whoever asked for one waits
// for it until a deadline. Then the call still goes on, and calls that come later wait behind it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <queue>
#include <string>
#include <thread>

namespace zbig {

using Deadline = std::chrono::steady_clock::time_point;

inline Deadline deadline_in(std::chrono::milliseconds time) {
  return std::chrono::steady_clock::now() + time;
}

// Whether to go on waiting; may do meanwhile what the wait needs to end.
using GoOn = std::function<bool()>;

class Worker {
 public:
  Worker();
  // Waits for the call that is being made, if any.
  ~Worker();

  // Makes `call` and throws what it throws. At the deadline throws Unavailable("SENTENCE: no answer
  // in time"): if the call was not begun by then it never will be, otherwise it goes on. So `call`
  // owns all that it uses. The same as soon as `go_on`, which is asked every few milliseconds, says
  // no.
  void run(std::function<void()> call, Deadline deadline, const std::string& sentence,
           const GoOn& go_on = {});

 private:
  struct Job {
    std::packaged_task<void()> task;
    enum { kWaiting, kBegun, kGivenUp } state = kWaiting;  // guarded by mutex_
  };
  void loop(const std::stop_token& stop);

  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::queue<std::shared_ptr<Job>> jobs_;  // guarded by mutex_
  std::jthread thread_;                    // last: ends before what it uses
};

}  // namespace zbig
