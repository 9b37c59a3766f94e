// SPDX-License-Identifier: BSD-3-Clause

// How the view of a device moves other than by a commit: refresh, abort, following.
//
// With a socket the server's view is all there is. With a FUSE file there is the kernel's cache
// above it, which nbdfuse can only drop as a whole, when the file is opened: opening writes dirty
// pages out and drops the clean ones, also those that are mapped. FuseMount::sync does that. So the
// order is: sync (what was written becomes dirty in the server, and then the view does not move),
// save the old view (D4), move the server's, sync again, and look whether something became dirty in
// between.

#include <algorithm>

#include <nlohmann/json.hpp>

#include "agent/database.h"
#include "agent/hinted_error.h"
#include "agent/log.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kSyncDeadline{60 * 1000};

}  // namespace

// Drops the kernel's cache after a move of the view; forgets the older view when nothing can have
// been written on it.
void Database::settle_cache(Device& device) {
  if (!device.mount) return;
  device.mount->sync(kSyncDeadline);
  if (!device.record.cached_base) return;
  if (!device.record.read_only && served_status(device).dirty_bytes > 0) return;
  device.record.cached_base.reset();
  save(device);
}

// False if the device is dirty, and then nothing moves. `to`: a tid in hex, or "head".
bool Database::move_view(Device& device, const std::string& to) {
  const bool cached = device.mount && !device.record.read_only;
  if (cached) {
    device.mount->sync(kSyncDeadline);
    const ServedDevice served = served_status(device);
    if (served.dirty_bytes + served.frozen_bytes > 0) return false;
    if (!device.record.cached_base) {
      device.record.cached_base = served.at;
      save(device);
    }
  }
  Json reply;
  try {
    reply = server_.request({{"op", "refresh"}, {"device", device.record.name}, {"at", to}});
  } catch (const Busy&) {
    return false;
  }
  const auto at = Tid::parse_hex(reply.value("at", ""));
  if (at) {
    const std::lock_guard lock(mutex_);
    device.at = *at;
  }
  settle_cache(device);
  return true;
}

void Database::refresh(const std::string& name) {
  const auto pass = enter("refresh " + name);
  Device& device = find_usable(name);
  if (device.record.pinned) {
    throw HintedError(ErrorCode::kInvalid,
                      "device " + name + " was attached at " + device.record.pinned->hex(),
                      "attach the volume without --at to see its present");
  }
  if (!move_view(device, "head")) {
    throw HintedError(ErrorCode::kBusy, "device " + name + " has uncommitted writes",
                      "commit or abort them first");
  }
}

void Database::abort(const std::string& name) {
  const auto pass = enter("abort " + name);
  Device& device = find_usable(name);
  if (device.record.read_only) throw ReadOnly("device " + name + " is read-only");
  // Writes that are still in the kernel must be given up too, not appear afterwards.
  if (device.mount) device.mount->sync(kSyncDeadline);
  const Json reply = server_.request({{"op", "abort"}, {"device", name}});
  const auto at = Tid::parse_hex(reply.value("at", ""));
  {
    const std::lock_guard lock(mutex_);
    if (at) device.at = *at;
    device.dirty_bytes = 0;
  }
  settle_cache(device);
}

// Moves clean devices that follow to the head. What another process commits is seen by asking the
// server, which watches the database; while this agent holds the database's lock (FileStorage) only
// its own commits can move the head, and they call this at once, with the `head` that they made.
void Database::follow(std::optional<Tid> made) {
  const std::vector<Device*> devices = attached_devices();
  const bool wanted = std::any_of(devices.begin(), devices.end(), [](const Device* device) {
    return device->served && device->record.follow && !device->record.pinned;
  });
  if (!wanted) return;
  try {
    const Tid head = made ? *made : server_.last_tid(milliseconds(1000));
    for (Device* device : devices) {
      if (!device->served || !device->record.follow || device->record.pinned) continue;
      {
        const std::lock_guard lock(mutex_);
        if (device->at >= head || device->dirty_bytes > 0) continue;
      }
      if (!device->record.read_only && served_status(*device).dirty_bytes > 0) continue;
      move_view(*device, head.hex());
    }
    const std::lock_guard lock(mutex_);
    feed_problem_.clear();
  } catch (const Error& error) {
    const std::lock_guard lock(mutex_);
    if (feed_problem_.empty()) log_line("following " + url_ + ": " + error.what());
    feed_problem_ = error.what();
  }
}

}  // namespace zbig
