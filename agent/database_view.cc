// SPDX-License-Identifier: BSD-3-Clause

// How the view of a device moves other than by a commit: refresh, abort, following.
//
// Above the server's view there are the pages of the front end. So the order is: sync (what was
// written becomes dirty in the server, and then the view does not move), move the server's view,
// drop the pages that it changed, tell the server (D4). From then on every program sees the new
// state, however it has the device open or mapped.

#include <algorithm>

#include <nlohmann/json.hpp>

#include "agent/database.h"
#include "agent/hinted_error.h"
#include "agent/log.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kSyncDeadline{60 * 1000};
constexpr milliseconds kSyncSlice{5000};
constexpr milliseconds kLookDeadline{1000};
// A commit waits so long for each device that follows and is stuck, and then others wait for
// kOthersShare times as long to be free of it.
constexpr milliseconds kFollowPatience{5000};
constexpr int kOthersShare = 4;

}  // namespace

// Drops the pages that a move of the view changed. If that fails the keeper tries again; then, or
// if another move comes first, it is all of them, for nobody remembers which were left.
void Database::settle(Device& device, const StalePages& pages, milliseconds patience) {
  const bool left_before = !device.settled;
  device.settled = false;
  try {
    front_of(device).drop_pages(left_before ? all_pages() : pages, patience);
  } catch (const Error& error) {
    const std::lock_guard lock(mutex_);
    device.drop_problem = error.what();
    throw;
  }
  say_settled(device);
}

void Database::say_settled(Device& device) {
  server_.request({{"op", "settled"}, {"device", device.record.name}});
  device.settled = true;
  {
    const std::lock_guard lock(mutex_);
    device.drop_problem.clear();
  }
  if (device.record.read_only && device.settled_at != device.at) {
    device.settled_at = device.at;
    context_.store->save_view(device.record.name, device.at);
  }
}

void Database::note_moved(Device& device, const Json& reply) {
  const auto at = Tid::parse_hex(reply.value("at", ""));
  const std::lock_guard lock(mutex_);
  if (at) device.at = *at;
  note_size(device, reply.value("size", device.size),
            reply.value("volume_size", device.volume_size));
  device.record.facts = reply.value("facts", device.record.facts);
  device.claimed = false;  // or it would not have moved
  device.heard.dirty_bytes = reply.value("dirty_bytes", std::uint64_t{0});
}

// After note_moved(): what programs see of the move.
void Database::show_move(Device& device, const Json& reply, milliseconds patience) {
  show_size(device);
  if (!reply.value("settled", false)) settle(device, stale_pages_of(reply), patience);
}

// False if the device is dirty, and then nothing moves. `to`: a tid in hex, or "head".
bool Database::move_view(Device& device, const std::string& to, milliseconds patience) {
  if (!device.record.read_only) front_of(device).sync(patience);
  Json reply;
  try {
    reply = server_.request({{"op", "refresh"}, {"device", device.record.name}, {"at", to}});
  } catch (const Busy&) {
    return false;
  }
  note_moved(device, reply);
  show_move(device, reply, patience);
  return true;
}

bool Database::note_claim(Device& device) {
  const bool claimed = front_of(device).claimed();
  const std::lock_guard lock(mutex_);
  device.claimed = claimed;
  return claimed;
}

// Throws where the view must not move since a mounted file system has its own idea of what is in
// the device.
void Database::refuse_claimed(Device& device) {
  if (!note_claim(device)) return;
  throw HintedError(ErrorCode::kBusy,
                    node_of(device.record, server_) + " of device " + device.record.name +
                        " is mounted, or claimed in another way, and its view stays as it is",
                    "unmount it first");
}

// Brings what programs wrote to the server. False if it waits there for room on the disk, which
// only a person can make.
bool Database::sync_unless_full(Device& device, milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (true) {
    try {
      front_of(device).sync(std::min(patience, kSyncSlice));
      return true;
    } catch (const Unavailable&) {
      if (!server_.alive() || context_.stop.stop_requested()) throw;
      if (!served_status(device, Server::kDeadline).full.empty()) return false;
      if (std::chrono::steady_clock::now() > deadline) throw;
    }
  }
}

void Database::refresh(const std::string& name) {
  const auto pass = enter("refresh " + name);
  Device& device = find_usable(name);
  if (device.record.pinned) {
    throw HintedError(ErrorCode::kInvalid,
                      "device " + name + " was attached at " + device.record.pinned->hex(),
                      "attach the volume without --at to see its present");
  }
  refuse_claimed(device);
  if (!move_view(device, "head", kSyncDeadline)) {
    throw HintedError(ErrorCode::kBusy, "device " + name + " has uncommitted writes",
                      "commit or abort them first");
  }
  feed_works(device);
}

void Database::abort(const std::string& name) {
  const auto pass = enter("abort " + name);
  Device& device = find_usable(name);
  if (device.record.read_only) throw ReadOnly("device " + name + " is read-only");
  refuse_claimed(device);
  // Writes that are still in the kernel must be given up too, not appear afterwards.
  const auto brought = [&] {
    try {
      return sync_unless_full(device, kSyncDeadline);
    } catch (const NoSpace&) {
      return true;  // lost already (--on-full error), and given up now
    } catch (const Failed&) {
      return true;
    }
  };
  int full = 0;
  while (!brought()) {
    // They find no room: what is on the disk goes first, and makes some. A program that never stops
    // to write fills it again.
    if (++full > 10) {
      throw NoSpace("device " + name + ": " + served_status(device, Server::kDeadline).full);
    }
    server_.request({{"op", "abort"}, {"device", name}});
  }
  const Json reply = server_.request({{"op", "abort"}, {"device", name}});
  note_moved(device, reply);
  show_size(device);
  // What was given up is stale, too.
  const StalePages stale = full > 0 || !device.settled ? all_pages() : stale_pages_of(reply);
  device.settled = false;
  front_of(device).discard_pages(stale, kSyncDeadline);
  say_settled(device);
}

// Moves clean devices that follow to the head. What another process commits is seen by asking the
// server, which watches the database; while this agent holds the database's lock (FileStorage) only
// its own commits can move the head, and they call this at once, with the `head` that they made.
void Database::follow(std::optional<Tid> made) {
  std::vector<Device*> devices = attached_devices();
  std::erase_if(devices, [](const Device* device) {
    return !device->served || !device->record.follow || device->record.pinned;
  });
  if (devices.empty()) return;
  try {
    catch_up(devices, made ? *made : server_.last_tid(kLookDeadline));
  } catch (const Error& error) {
    for (Device* device : devices) feed_lost(*device, error.what());
  }
}

void Database::catch_up(std::span<Device* const> devices, Tid head) {
  std::vector<Device*> behind;
  for (Device* device : devices) {
    const bool current = !device->stale && device->feed_problem.empty();
    const std::lock_guard lock(mutex_);
    if (!current || device->at < head) behind.push_back(device);
  }
  if (behind.empty()) return;
  const std::map<std::string, ServedDevice> served = server_.status(kLookDeadline);
  for (Device* device : behind) {
    const auto live = served.find(device->record.name);
    if (live == served.end()) continue;
    const auto begin = std::chrono::steady_clock::now();
    if (begin < device->follow_after) continue;
    try {
      catch_up(*device, live->second, head);
      continue;
    } catch (const Error& error) {
      feed_lost(*device, error.what());
    }
    // Most of the time is for the others, and for those who commit.
    const auto now = std::chrono::steady_clock::now();
    device->follow_after = now + kOthersShare * (now - begin);
  }
}

void Database::catch_up(Device& device, const ServedDevice& served, Tid head) {
  const bool dirty = served.dirty_bytes + served.frozen_bytes > 0;
  if (served.at < head && !dirty && !note_claim(device)) {
    move_view(device, head.hex(), kFollowPatience);
  } else if (!dirty && !device.settled) {
    // The keeper is at it; see settle().
    throw Unavailable("old pages are not dropped yet");
  }
  feed_works(device);
}

void Database::feed_works(Device& device) {
  if (device.stale) {
    server_.request({{"op", "stale"}, {"device", device.record.name}, {"stale", false}});
  }
  const std::lock_guard lock(mutex_);
  if (device.stale || !device.feed_problem.empty()) {
    log_line("device " + device.record.name + " follows again");
  }
  device.stale = false;
  device.feed_problem.clear();
}

// D7.
void Database::feed_lost(Device& device, const std::string& why) {
  const auto now = std::chrono::steady_clock::now();
  {
    const std::lock_guard lock(mutex_);
    if (device.feed_problem.empty()) {
      device.feed_lost_at = now;
      log_line("device " + device.record.name + " does not follow: " + why);
    }
    device.feed_problem = why;
    if (device.stale || now - device.feed_lost_at < context_.feed_grace) return;
  }
  try {
    make_stale(device);
  } catch (const Error& error) {
    log_line("device " + device.record.name + ": ending its reads: " + error.what());
  }
}

// First the server, or what was dropped would be read again. What is dirty in the kernel reaches
// the server meanwhile, and then it lets the device be read.
void Database::make_stale(Device& device) {
  const ServedDevice served = served_status(device, kLookDeadline);
  if (served.dirty_bytes + served.frozen_bytes > 0 || note_claim(device)) return;
  server_.request({{"op", "stale"}, {"device", device.record.name}, {"stale", true}},
                  kLookDeadline);
  front_of(device).drop_pages(all_pages(), kFollowPatience);
  {
    const std::lock_guard lock(mutex_);
    device.stale = true;
  }
  log_line("device " + device.record.name + ": reads fail until it follows again");
}

}  // namespace zbig
