// SPDX-License-Identifier: BSD-3-Clause
#include "agent/kernel_nbd/worker.h"

#include "zodb/error.h"

namespace zbig {

Worker::Worker() : thread_([this](const std::stop_token& stop) { loop(stop); }) {}

Worker::~Worker() = default;

void Worker::run(std::function<void()> call, Deadline deadline, const std::string& sentence) {
  auto job = std::make_shared<Job>();
  job->task = std::packaged_task<void()>(std::move(call));
  std::future<void> done = job->task.get_future();
  {
    const std::lock_guard lock(mutex_);
    jobs_.push(job);
  }
  wake_.notify_one();
  if (done.wait_until(deadline) != std::future_status::ready) {
    const std::lock_guard lock(mutex_);
    if (job->state == Job::kWaiting) job->state = Job::kGivenUp;
    throw Unavailable(sentence + ": no answer in time");
  }
  done.get();
}

void Worker::loop(const std::stop_token& stop) {
  for (;;) {
    std::shared_ptr<Job> job;
    {
      std::unique_lock lock(mutex_);
      if (!wake_.wait(lock, stop, [this] { return !jobs_.empty(); })) return;
      job = std::move(jobs_.front());
      jobs_.pop();
      if (job->state == Job::kGivenUp) continue;
      job->state = Job::kBegun;
    }
    job->task();
  }
}

}  // namespace zbig
