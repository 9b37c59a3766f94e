// SPDX-License-Identifier: BSD-3-Clause

// The keeper: a thread of each database that brings back what died.
//
// It sleeps until a process that it watches ends (pidfd), somebody wakes it, or it is time to look
// at the head. Everything it does it does with the gate; while an operation is under way it waits.
// A failure is tried again after 0.1 s, 0.2 s, ... up to 10 s, and the status tells it meanwhile.

#include <algorithm>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <poll.h>

#include "agent/database.h"
#include "agent/log.h"
#include "zodb/url.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kDropDeadline{5000};
constexpr int kOthersShare = 4;
constexpr milliseconds kFirstBackoff{100};
constexpr milliseconds kLongestBackoff{10000};
constexpr milliseconds kLookAtHeadEvery{200};
constexpr milliseconds kRetryLockEvery{1000};
// What is asked of a server of ZEO that does not answer stays with our server for a while.
constexpr milliseconds kLookAtLostEvery{5000};

}  // namespace

void Database::start() {
  keeper_ = std::jthread([this](const std::stop_token& stop) { keep(stop); });
}

bool Database::wait_recovered(milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return recovered_changed_.wait_for(lock, timeout, [&] { return recovered_; });
}

void Database::wake_keeper() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_fd_.get(), &one, sizeof one);
}

void Database::keep(std::stop_token stop) {
  while (!stop.stop_requested()) {
    try {
      const auto pass = gate_.enter("", stop);
      look_after();
      watch_processes();
    } catch (const std::exception& error) {
      if (!stop.stop_requested()) log_line("keeper of " + url_ + ": " + error.what());
    }
    {
      const std::lock_guard lock(mutex_);
      recovered_ = true;
      recovered_changed_.notify_all();
    }
    std::vector<pollfd> items{{.fd = wake_fd_.get(), .events = POLLIN, .revents = 0}};
    for (const Fd& fd : watched_) items.push_back({.fd = fd.get(), .events = POLLIN, .revents = 0});
    const auto now = Clock::now();
    milliseconds sleep = kRetryLockEvery;
    const auto until = [&](Clock::time_point then) {
      return std::chrono::duration_cast<milliseconds>(then - now) + milliseconds(1);
    };
    if (next_look_at_head_ != Clock::time_point{}) sleep = until(next_look_at_head_);
    if (backoff_.count() > 0) sleep = std::min(sleep, until(next_try_));
    // What has ended keeps its descriptor readable: wait for the backoff, not for it.
    const nfds_t count = backoff_.count() > 0 ? 1 : items.size();
    ::poll(items.data(), count, static_cast<int>(std::clamp<long>(sleep.count(), 1, 10000)));
    std::uint64_t wakes = 0;
    [[maybe_unused]] const ssize_t n = ::read(wake_fd_.get(), &wakes, sizeof wakes);
  }
}

// Copies, so that they stay what they are while the gate is somebody else's.
void Database::watch_processes() {
  watched_.clear();
  const auto watch = [&](int pidfd) {
    if (pidfd < 0) return;
    Fd copy(::fcntl(pidfd, F_DUPFD_CLOEXEC, 0));
    if (copy) watched_.push_back(std::move(copy));
  };
  watch(server_.pidfd());
  for (const Device* device : attached_devices()) {
    if (!device->front) continue;
    for (const int fd : device->front->watched()) watch(fd);
  }
}

// The server says it too, but its log may be on the very disk that is full.
void Database::watch_room() {
  try {
    for (const auto& [name, served] : server_.status(milliseconds(1000))) {
      const std::lock_guard lock(mutex_);
      const auto at = devices_.find(name);
      if (at == devices_.end() || at->second->waits_for_room == !served.full.empty()) continue;
      at->second->waits_for_room = !served.full.empty();
      log_line("device " + name +
               (served.full.empty() ? ": there is room again"
                                    : ": writers wait for room: " + served.full));
    }
  } catch (const Error&) {
    // The server is looked after elsewhere.
  }
}

void Database::look_after() {
  std::vector<Device*> devices = attached_devices();
  if (devices.empty()) {
    backoff_ = milliseconds(0);
    return;
  }
  const bool well =
      server_.alive() && std::all_of(devices.begin(), devices.end(), [](auto* device) {
        return device->served && device->settled && device->shown_size == device->size &&
               device->front && device->front->well();
      });
  // One device that does not come back is no reason for the others not to follow.
  const bool server_died = server_lived_ && !server_.alive();
  if (!well && (server_died || Clock::now() >= next_try_)) {
    std::string failure;
    const auto begin = Clock::now();
    try {
      failure = recover();
    } catch (const std::exception& error) {
      failure = error.what();
      const std::lock_guard lock(mutex_);
      for (Device* device : devices) {
        if (!device->served) device->problem = failure;
      }
    }
    server_lived_ = server_.alive();
    if (failure.empty()) {
      backoff_ = milliseconds(0);
      next_try_ = {};
      wake_keeper();
      return;
    }
    backoff_ = std::clamp(backoff_ * 2, kFirstBackoff, kLongestBackoff);
    // A device that is stuck takes a while to fail; most of the time is for those who commit.
    const auto spent = std::chrono::duration_cast<milliseconds>(Clock::now() - begin);
    const milliseconds pause =
        server_lived_ ? std::clamp<milliseconds>(kOthersShare * spent, backoff_, kLongestBackoff)
                      : backoff_;
    next_try_ = Clock::now() + pause;
    log_line("recovery of " + url_ + ": " + failure + "; again in " +
             std::to_string(pause.count()) + " ms");
    devices = attached_devices();  // some may have gone
  }
  if (!server_.alive()) {
    next_look_at_head_ = {};
    return;
  }
  watch_room();
  const bool writable = std::any_of(devices.begin(), devices.end(),
                                    [](const Device* device) { return !device->record.read_only; });
  if (writable && !storage_) {
    try {
      lock_storage();
      log_line("the lock of " + url_ + " is held again");
    } catch (const Error&) {
      // lock_problem_ tells the status; commit tells whoever commits.
    }
  }
  watch_shared();
  follow();
  const auto any = [&](auto property) {
    return std::any_of(devices.begin(), devices.end(), property);
  };
  // Others' commits have to be looked for, and the end of a claim; see follow(). While the lock is
  // ours there are none, and of those to a shared database we are told: then it is only to see
  // whether the database is still there.
  const bool shared = is_shared_url(url_);
  const bool lost = any([](auto* device) { return !device->feed_problem.empty(); });
  const bool claimed = any([](auto* device) { return device->claimed; });
  const bool often = !shared && !lost && (!storage_ || claimed);
  next_look_at_head_ = Clock::now() + (often            ? kLookAtHeadEvery
                                       : shared && lost ? kLookAtLostEvery
                                                        : kRetryLockEvery);
}

// Brings a device to the state that its record says, from whatever is there.
void Database::recover_device(Device& device, const ServedDevice* known) {
  const DeviceRecord& record = device.record;
  if (known == nullptr) {
    serve(device, true);
  } else {
    // A commit of an earlier agent that was cut short.
    server_.request({{"op", "unfreeze"}, {"device", record.name}});
    device.settled = known->settled;
    const std::lock_guard lock(mutex_);
    device.at = known->at;
    note_size(device, known->size, known->volume_size);
    device.heard.dirty_bytes = known->dirty_bytes + known->frozen_bytes;
    device.stale = known->stale;
    device.served = true;
  }
  if (!record.complete) {
    // An attach that was cut short: nobody was told of the device, so it goes, unless somebody
    // wrote to it all the same.
    if (last_heard_dirty(device) == 0) {
      withdraw(device);
      forget(device, false, false, true);
      return;
    }
    change_record(device, [](DeviceRecord& all) { all.complete = true; });
  }
  bring_up(device);
  if (device.stale) front_of(device).drop_pages(all_pages(), kDropDeadline);
  if (device.settled) return;
  // A server that died knows no more of a device without overlay that it was settled.
  const bool same_view = record.read_only && device.at == device.settled_at;
  if (same_view && front_of(device).claimed()) {
    say_settled(device);
  } else {
    settle(device, all_pages(), kDropDeadline);
  }
}

// Brings everything back; what it returns is what is wrong still, device by device.
std::string Database::recover() {
  const std::vector<Device*> devices = attached_devices();
  if (!server_.alive()) {
    const std::lock_guard lock(mutex_);
    for (Device* device : devices) {
      if (!device->served) continue;
      device->served = false;
      device->problem = "the server ended and is being started again";
    }
  }
  server_.ensure_running();
  std::map<std::string, ServedDevice> known = server_.status(Server::kDeadline);
  std::string failures;
  for (Device* device : devices) {
    const std::string name = device->record.name;
    try {
      const auto at = known.find(name);
      recover_device(*device, at == known.end() ? nullptr : &at->second);
    } catch (const std::exception& error) {
      const std::lock_guard lock(mutex_);
      device->problem = error.what();
      failures += (failures.empty() ? "device " : "; device ") + name + ": " + error.what();
    }
    known.erase(name);
  }
  // What an earlier agent attached and did not come to write down. Its writes, if any, stay on
  // disk.
  for (const auto& [name, served] : known) {
    server_.request({{"op", "detach"}, {"device", name}, {"keep", true}});
  }
  return failures;
}

}  // namespace zbig
