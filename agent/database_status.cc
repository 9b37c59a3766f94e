// SPDX-License-Identifier: BSD-3-Clause

// What a database's devices tell about themselves. Any thread asks, whatever goes on meanwhile: so
// nothing here waits for the gate, and the server is asked without mutex_.

#include <algorithm>

#include "agent/database.h"

namespace zbig {
namespace {

constexpr std::chrono::milliseconds kStatusDeadline{1000};

}  // namespace

std::vector<DeviceStatus> Database::status() {
  std::map<std::string, ServedDevice> served;
  std::string silence;
  bool any_attached = false;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, device] : devices_) any_attached |= device->served;
  }
  if (any_attached) {
    try {
      served = server_.status(kStatusDeadline);
    } catch (const std::exception& error) {
      silence = error.what();
    }
  }
  const std::string operation = gate_.holder();
  const auto shows = [](const Device& device, const ServedDevice& live) {
    return live.settled && live.size == device.shown_size;
  };
  std::vector<DeviceStatus> result;
  const std::lock_guard lock(mutex_);
  for (const auto& [name, device] : devices_) {
    DeviceStatus status;
    status.record = device->record;
    status.last_commit = device->last_commit;
    status.node = node_of(device->record, server_);
    const auto live = served.find(name);
    if (live != served.end()) {
      device->heard.dirty_bytes = live->second.dirty_bytes + live->second.frozen_bytes;
      device->heard.overlay_bytes = live->second.overlay_bytes;
      if (shows(*device, live->second)) {
        device->heard.shown = std::max(device->heard.shown, live->second.at);
      }
    }
    // D6. What another caller heard meanwhile may be newer, but goes with its `settled`, not ours.
    status.settled = live != served.end() && shows(*device, live->second);
    status.at = status.settled ? live->second.at : device->heard.shown;
    status.size = device->shown_size;
    status.volume_size = device->volume_size;
    status.dirty_bytes = device->heard.dirty_bytes;
    status.overlay_bytes = device->heard.overlay_bytes;
    if (!device->record.attached) {
      status.state = "kept";
      status.node.clear();
    } else if (!device->served || device->heard.shown == Tid{}) {
      status.state = "recovering";
      status.waits_for = device->problem;
    } else if (device->committing) {
      status.state = "committing";
      status.commit_done = commit_done_;
      status.commit_total = commit_total_;
    } else if (!silence.empty() || live == served.end()) {
      status.state = "unreachable";
      status.waits_for = silence.empty() ? "the server does not know the device" : silence;
    } else if (!live->second.error.empty()) {
      status.state = "failed";
      status.waits_for = live->second.error;
    } else {
      status.state = device->heard.dirty_bytes > 0         ? "dirty"
                     : device->stale && live->second.stale ? "stale"
                                                           : "clean";
    }
    if (status.waits_for.empty() && live != served.end() && !live->second.full.empty()) {
      status.waits_for = "room for what is not committed: " + live->second.full;
    }
    if (status.waits_for.empty() && !status.settled && !device->drop_problem.empty()) {
      status.waits_for = "old pages to be dropped: " + device->drop_problem;
    }
    if (status.waits_for.empty() && !device->feed_problem.empty()) {
      status.waits_for = "news of what others committed: " + device->feed_problem;
    }
    if (status.waits_for.empty() && !device->record.read_only) status.waits_for = lock_problem_;
    if (status.waits_for.empty() && !device->committing) status.waits_for = operation;
    status.feed = device->record.pinned           ? "pinned"
                  : device->claimed               ? "mounted"
                  : !device->record.follow        ? "manual"
                  : !device->feed_problem.empty() ? "lost"
                                                  : "following";
    if (device->record.attached)
      status.nbd = nbd_uri(server_.nbd_socket(), device->record.export_name);
    result.push_back(std::move(status));
  }
  return result;
}

}  // namespace zbig
