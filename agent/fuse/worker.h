// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "agent/fd.h"
#include "agent/fuse/event_loop.h"
#include "agent/fuse/kernel_cache.h"

// Workers: processes that do what would block the process which serves the device.
//
// The serving process has one thread and forks, so a worker starts with a copy of all that it
// knows, for the price of a fork. It keeps only its end of a socket to the serving process (its
// *line*), a clone of the kernel's device, and what it was started for.
//
// W1  The serving process never waits for a worker.
// W2  A worker ends when its line does (the serving process ended or died): at once if it is idle,
//     else as soon as it can get out of the kernel, which it helps along (kernel_cache.h, K2).

namespace zbig::fuse {

using Json = nlohmann::ordered_json;

// A worker's own view.
class Worker {
 public:
  Worker(Fd line, KernelCache cache) : line_(std::move(line)), cache_(std::move(cache)) {}

  const KernelCache& cache() const { return cache_; }
  // Asks the serving process; throws the error that it replies, Unavailable if it is gone.
  Json ask(const Json& request) const;
  // Between two pieces of work; see W2. A worker starts busy.
  void set_idle(bool idle) { idle_ = idle; }

 private:
  friend class Workers;
  void watch_line();

  Fd line_;
  KernelCache cache_;
  std::atomic<bool> idle_ = false;
};

class Workers {
 public:
  // Answers a worker's question, now or later.
  using Reply = std::function<void(const Json&)>;
  using Answer = std::function<void(const Json& question, Reply reply)>;

  // `shared`: a descriptor that every worker keeps.
  Workers(EventLoop& loop, int shared, Answer answer);
  ~Workers();

  // Runs `work` in a new process, which keeps `inherited` open and has a copy of the rest of the
  // memory. `kernel_fd`: of the FUSE device. Throws Busy if there are too many, Failed.
  void start(int kernel_fd, Fd inherited, const std::function<void(Worker&, Fd)>& work);
  std::size_t count() const;
  // Ends every line and waits for the workers to end.
  void finish(std::chrono::milliseconds patience);

 private:
  class Line;
  EventLoop& loop_;
  const int shared_;
  Answer answer_;
  std::list<std::shared_ptr<Line>> lines_;
};

}  // namespace zbig::fuse
