// SPDX-License-Identifier: BSD-3-Clause
#include "agent/fuse/event_loop.h"

#include <algorithm>
#include <cerrno>

#include <poll.h>

#include "zodb/error.h"

namespace zbig::fuse {
namespace {

// Rounded up, so that what was waited for is due when poll returns.
int milliseconds_until(std::optional<Clock::time_point> deadline) {
  constexpr int kLongest = 60'000;
  if (!deadline) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, kLongest));
}

}  // namespace

void EventLoop::remove(EventSource& source) {
  std::replace(sources_.begin(), sources_.end(), &source, static_cast<EventSource*>(nullptr));
}

void EventLoop::turn() {
  std::erase(sources_, nullptr);
  std::vector<pollfd> polled(sources_.size());
  std::optional<Clock::time_point> earliest;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const short events = sources_[i]->events();
    polled[i] = {events == 0 ? -1 : sources_[i]->fd(), events, 0};
    const auto deadline = sources_[i]->deadline();
    if (deadline && (!earliest || *deadline < *earliest)) earliest = deadline;
  }
  if (poll(polled.data(), polled.size(), milliseconds_until(earliest)) < 0) {
    if (errno == EINTR) return;
    throw_errno("poll", errno);
  }
  // Sources added by a callback come after these, and wait for the next turn.
  for (std::size_t i = 0; i < polled.size(); ++i) {
    if (sources_[i] != nullptr && polled[i].revents != 0) sources_[i]->on_ready(polled[i].revents);
  }
  if (!earliest) return;
  const Clock::time_point now = Clock::now();
  for (std::size_t i = 0; i < polled.size(); ++i) {
    if (sources_[i] == nullptr) continue;
    const auto deadline = sources_[i]->deadline();
    if (deadline && *deadline <= now) sources_[i]->on_deadline();
  }
}

}  // namespace zbig::fuse
