// SPDX-License-Identifier: BSD-3-Clause

// Commit of one or more devices of a database, as one transaction (design rules 4 to 7).
//
//   sync       what programs wrote to mapped pages comes to the server; with --freeze again after
//              programs were stopped, which go on when the next step is done
//   freeze     each device: what is dirty now is what is committed, instantly; writes that come
//              during the commit belong to the next one
//   commit     the dirty bytes come from the file that freeze gave (agent/dirty_reader.h), block by
//              block, and go into the transaction (bigfile/commit.h)
//   committed  each device: the frozen writes go, the view moves to the new transaction
//
// Cut short before the transaction is durable, everything is dirty as before: by `unfreeze` if the
// server lives, by itself otherwise. After that nothing can fail that matters: D3.

#include <algorithm>
#include <chrono>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "agent/database.h"
#include "agent/dirty_reader.h"
#include "agent/hinted_error.h"
#include "agent/log.h"
#include "bigfile/changes.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kSyncDeadline{10 * 60 * 1000};
constexpr milliseconds kDropDeadline{60 * 1000};
// While programs are stopped; only what was written during the sync before is left to do.
constexpr milliseconds kStoppedSyncDeadline{30 * 1000};

// Of files and arrays alike: the same bytes.
bool same_layout(const Volume& a, const Volume& b) {
  return a.zfile == b.zfile && a.blktab == b.blktab && a.blksize == b.blksize;
}

std::string now_iso() { return Tid::from_time(std::chrono::system_clock::now()).iso(); }

// A device is made of whole pages, and in the last one what lies past the array's end reads as
// zeros. Those are no bytes of the array, and the file below it, which may be longer, has others
// there: of that part nothing is stored. Returns the page, if there is one.
std::optional<Extent> end_with_array(DirtyReader& writes, const Volume& volume,
                                     const std::string& device) {
  if (!volume.array) return std::nullopt;
  const std::uint64_t end = volume.array->nbytes;
  const std::uint64_t last = writes.extents().back().end();
  if (last > end && last - end >= kPageSize) {
    throw HintedError(ErrorCode::kInvalid,
                      "device " + device + " was written to up to " + std::to_string(last) +
                          ", but the array " + volume.path + " ends at " + std::to_string(end),
                      "`zbig abort " + device + "` gives up what was written");
  }
  if (last <= end) return std::nullopt;
  writes.end_at(end);
  return Extent{end / kPageSize * kPageSize, kPageSize};
}

DirtyReader freeze(const Server& server, const std::string& device) {
  try {
    return DirtyReader::freeze(server, device);
  } catch (const Busy&) {
    // No other commit of the device is under way (D2). The server has just done what an agent asked
    // that was killed, after we had put right what that one left.
    server.request({{"op", "unfreeze"}, {"device", device}});
    return DirtyReader::freeze(server, device);
  }
}

}  // namespace

struct Database::Frozen {
  Device* device = nullptr;
  DirtyReader writes;
  std::optional<Extent> cut;  // end_with_array()
  std::set<Tid> own;          // own_commits_after()
};

void Database::sync_all(std::span<Device* const> devices, milliseconds patience) {
  for (Device* device : devices) {
    if (sync_unless_full(*device, patience)) continue;
    throw HintedError(
        ErrorCode::kNoSpace,
        "device " + device->record.name + ": " + served_status(*device, Server::kDeadline).full,
        "what programs wrote to it does not fit on the disk: make room there and commit again, or "
        "give it up with `zbig abort`");
  }
}

// Nothing is stopped for the long time that a sync may take: see commit().
std::optional<ProgramFreeze> Database::stop_programs(std::span<Device* const> devices,
                                                     const FreezeChoice& choice) {
  const std::string mark = context_.store->freeze_mark(devices[0]->record.name);
  if (choice.kind == FreezeKind::kCgroup) {
    std::vector<pid_t> needed{::getpid(), server_.pid()};
    for (Device* device : attached_devices()) {
      const std::vector<pid_t> more = front_of(*device).processes();
      needed.insert(needed.end(), more.begin(), more.end());
    }
    return ProgramFreeze::of_cgroup(choice.cgroup, needed, mark);
  }
  if (choice.kind == FreezeKind::kFileSystems) {
    std::vector<std::string> nodes;
    for (Device* device : devices) nodes.push_back(node_of(device->record, server_));
    return ProgramFreeze::of_file_systems(nodes, context_.places.state_directory, mark,
                                          [this] { return server_.alive(); });
  }
  return std::nullopt;
}

std::vector<Database::Frozen> Database::freeze_all(std::span<Device* const> devices) {
  std::vector<Frozen> frozen;
  try {
    for (Device* device : devices) {
      frozen.push_back({device, freeze(server_, device->record.name), {}, {}});
    }
  } catch (...) {
    release(frozen);
    throw;
  }
  return frozen;
}

void Database::release(std::span<Frozen> frozen) noexcept {
  for (const Frozen& item : frozen) {
    try {
      server_.request({{"op", "unfreeze"}, {"device", item.device->record.name}});
    } catch (const std::exception& error) {
      // A server that died folds them back when it gets the device again.
      log_line("commit: " + item.device->record.name + ": " + error.what());
    }
  }
}

std::optional<Tid> Database::tid_of_voted(const std::string& mark) const {
  if (const auto tid = Tid::parse_hex(mark)) return tid;
  try {
    return storage_->find_voted(mark);
  } catch (const NotFound& error) {
    log_line(error.what());  // what it changed is a conflict now
    return std::nullopt;
  }
}

// Earlier commits of the device that were cut short and may have landed (D3).
std::set<Tid> Database::own_commits_after(const DeviceRecord& record, Tid base) const {
  std::set<Tid> own;
  for (const std::string& mark : context_.store->voted(record.name)) {
    if (const auto tid = tid_of_voted(mark); tid && *tid > base) own.insert(*tid);
  }
  return own;
}

// Once a commit is in, the view has what others committed too, which a mounted file system would
// take amiss. What the device itself committed (`own`) is the file system's.
void Database::refuse_change_below(Device& device, const Volume& volume, Tid base, Tid head,
                                   const std::set<Tid>& own) {
  if (base == head || !front_of(device).claimed()) return;
  for (const BlockChange& change : changed_blocks(*storage_, volume, base, head)) {
    if (own.contains(change.tid)) continue;
    throw HintedError(ErrorCode::kConflict,
                      "device " + device.record.name +
                          " is mounted, or claimed in another way, and " + change.tid.hex() +
                          " changed volume " + device.record.volume + " below it",
                      "unmount it and commit again: what both changed is a conflict then, too");
  }
}

CommitOutcome Database::commit_frozen(std::span<Frozen> frozen, const CommitRequest& request) {
  storage_->sync();
  const Tid head = storage_->last_tid();
  std::vector<VolumeCommit> volumes;
  std::uint64_t total = 0;
  for (Frozen& item : frozen) {
    const DeviceRecord& record = item.device->record;
    if (item.writes.extents().empty()) continue;
    const Tid base = item.writes.base();
    const Volume at_base = find_volume(*storage_, record.volume, base);
    item.cut = end_with_array(item.writes, at_base, record.name);
    if (item.writes.extents().empty()) continue;
    total += item.writes.total_bytes();
    Volume volume = base == head ? at_base : find_volume(*storage_, record.volume, head);
    if (!same_layout(volume, at_base)) {
      throw HintedError(ErrorCode::kConflict,
                        "volume " + record.volume + " was replaced by another since " + base.hex(),
                        "the writes to device " + record.name +
                            " were made to the old one; `zbig abort` gives them up");
    }
    item.own = own_commits_after(record, base);
    refuse_change_below(*item.device, volume, base, head, item.own);
    for (const VolumeCommit& other : volumes) {
      if (other.volume.zfile == volume.zfile) {
        throw HintedError(ErrorCode::kInvalid,
                          "two of the devices are of the volume " + record.volume,
                          "commit them one after the other");
      }
    }
    volumes.push_back({.volume = std::move(volume),
                       .base = base,
                       .source = &item.writes,
                       .format = record.format,
                       .merge = request.merge,
                       .own = item.own});
  }
  commit_done_ = 0;
  commit_total_ = total;
  CommitOutcome outcome;
  if (volumes.empty()) return outcome;
  const auto progress = [this](std::uint64_t done, std::uint64_t all) {
    commit_done_ = done;
    commit_total_ = all;
    if (context_.stop.stop_requested()) throw Unavailable("the agent is stopping");
    if (!server_.alive()) throw Unavailable("the server of the database ended");
  };
  // What the device is known to have committed, and maybe `mark`, which has no tid yet.
  const auto note = [&](const Frozen& item, const std::string& mark) {
    std::vector<std::string> marks;
    for (const Tid tid : item.own) marks.push_back(tid.hex());
    if (!mark.empty()) marks.push_back(mark);
    context_.store->save_voted(item.device->record.name, marks);
  };
  std::string voted_mark;
  const auto voted = [&](const std::string& mark, bool merged) {
    if (merged || mark.empty()) return;  // VolumeCommit::own must be able to trust it
    voted_mark = mark;
    for (const Frozen& item : frozen) {
      if (!item.writes.extents().empty()) note(item, mark);
    }
  };
  const CommitResult result = zbig::commit(*storage_, volumes, request.meta, progress, voted);
  if (result.tid && !voted_mark.empty() && voted_mark != result.tid->hex()) {
    // So that it need not be looked for.
    for (Frozen& item : frozen) {
      if (item.writes.extents().empty()) continue;
      item.own.insert(*result.tid);
      note(item, {});
    }
  }
  outcome.tid = result.tid;
  outcome.blocks_changed = result.blocks_changed;
  outcome.blocks_merged = result.blocks_merged;
  outcome.bytes_stored = result.bytes_stored;
  return outcome;
}

void Database::note_commit(std::span<Device* const> devices, const std::optional<Tid>& tid,
                           const std::string& result) {
  const LastCommit last{.tid = tid, .time = now_iso(), .result = result};
  for (Device* device : devices) {
    {
      const std::lock_guard lock(mutex_);
      device->committing = false;
      device->last_commit = last;
    }
    context_.store->save_last_commit(device->record.name, last);
  }
}

CommitOutcome Database::commit(std::span<const std::string> names, const CommitRequest& request) {
  std::string operation = "commit";
  for (const std::string& name : names) operation += " " + name;
  const auto pass = enter(operation);
  std::vector<Device*> devices;
  for (const std::string& name : names) {
    Device& device = find_usable(name);
    if (device.record.read_only) throw ReadOnly("device " + name + " is read-only");
    if (std::find(devices.begin(), devices.end(), &device) == devices.end()) {
      devices.push_back(&device);
    }
  }
  lock_storage();
  {
    const std::lock_guard lock(mutex_);
    commit_done_ = commit_total_ = 0;
    for (Device* device : devices) device->committing = true;
  }
  CommitOutcome outcome;
  std::vector<Frozen> frozen;
  try {
    sync_all(devices, kSyncDeadline);
    auto stopped = stop_programs(devices, request.freeze);
    if (stopped) sync_all(devices, kStoppedSyncDeadline);
    frozen = freeze_all(devices);
    if (stopped) stopped->thaw();
    outcome = commit_frozen(frozen, request);
  } catch (const std::exception& error) {
    release(frozen);
    note_commit(devices, std::nullopt, error.what());
    wake_keeper();
    throw;
  }
  // From here on the commit has succeeded, whatever else happens.
  const Tid now = outcome.tid.value_or(storage_->last_tid());
  std::vector<std::pair<Device*, Json>> others_came;
  for (const Frozen& item : frozen) {
    Device& device = *item.device;
    try {
      const Json reply = server_.request({{"op", "committed"},
                                          {"device", device.record.name},
                                          {"at", now.hex()},
                                          {"stored", outcome.tid.has_value()}});
      note_moved(device, reply);
      if (!reply.value("settled", false) || device.size != device.shown_size) {
        others_came.emplace_back(&device, reply);
      }
    } catch (const std::exception& error) {
      outcome.warning = "device " + device.record.name +
                        " may still be called dirty: " + error.what() +
                        "; committing it again stores nothing";
      log_line("commit: " + outcome.warning);
    }
  }
  for (const auto& [device, reply] : others_came) {
    try {
      show_move(*device, reply, kDropDeadline);
    } catch (const std::exception& error) {
      log_line("commit: " + device->record.name +
               " may show others' changes late: " + error.what());
      wake_keeper();
    }
  }
  for (const Frozen& item : frozen) {
    // The page in the kernel has still what the server has no more.
    if (!item.cut) continue;
    try {
      FrontEnd& front = front_of(*item.device);
      if (!front.claimed())
        front.drop_pages({.whole = false, .extents = {*item.cut}}, kDropDeadline);
    } catch (const std::exception& error) {
      log_line("commit: " + item.device->record.name + " shows still what was written past its " +
               "array's end: " + error.what());
    }
  }
  note_commit(devices, outcome.tid, outcome.tid ? "committed" : "nothing to commit");
  log_line(operation + ": " + (outcome.tid ? outcome.tid->hex() : "nothing to commit"));
  if (outcome.tid) follow(outcome.tid);
  if (!outcome.warning.empty()) wake_keeper();
  return outcome;
}

}  // namespace zbig
