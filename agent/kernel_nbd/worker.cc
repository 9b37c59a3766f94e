// SPDX-License-Identifier: BSD-3-Clause
#include "agent/kernel_nbd/worker.h"

#include <algorithm>

#include "zodb/error.h"

namespace zbig {

Worker::Worker() : thread_([this](const std::stop_token& stop) { loop(stop); }) {}

Worker::~Worker() = default;

namespace {

constexpr std::chrono::milliseconds kAskEvery{20};

}  // namespace

void Worker::run(std::function<void()> call, Deadline deadline, const std::string& sentence,
                 const GoOn& go_on) {
  auto job = std::make_shared<Job>();
  job->task = std::packaged_task<void()>(std::move(call));
  std::future<void> done = job->task.get_future();
  {
    const std::lock_guard lock(mutex_);
    jobs_.push(job);
  }
  wake_.notify_one();
  while (true) {
    const auto now = std::chrono::steady_clock::now();
    const Deadline look = go_on ? std::min(deadline, now + kAskEvery) : deadline;
    if (done.wait_until(look) == std::future_status::ready) break;
    const bool given_up = go_on && !go_on();
    if (!given_up && now < deadline) continue;
    const std::lock_guard lock(mutex_);
    if (job->state == Job::kWaiting) job->state = Job::kGivenUp;
    throw Unavailable(sentence + (given_up ? ": given up" : ": no answer in time"));
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
