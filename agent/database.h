// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "agent/device_record.h"
#include "agent/fd.h"
#include "agent/front_end.h"
#include "agent/gate.h"
#include "agent/program_freeze.h"
#include "agent/server.h"
#include "bigfile/commit.h"
#include "bigfile/import.h"
#include "zodb/storage.h"

// Database: one ZODB database with the devices attached from it; where everything that the agent
// promises comes together.
//
// The pieces. The server (agent/server.h) shows the devices, each at its view, and keeps their
// uncommitted writes in an overlay. A front end (agent/front_end.h) is how programs reach one.
// The storage, opened for writing, is what commits go to. The folder of a device
// (agent/device_record.h) is what outlives everything. Any of the processes may die at any moment,
// and so may this one.
//
// D1  Uncommitted writes are in the overlay's folder and nowhere else. Nothing removes that folder
//     but detach of a clean device, detach --discard, and the server's `abort` and `committed`.
// D2  One operation at a time (gate_). Whoever holds the gate may talk to the server about devices,
//     and change Device objects (under mutex_, which readers of the status take). Only
//     Device::heard is noted by readers of the status too.
// D3  A commit tells the server `committed` only after the transaction is durable. Cut short
//     anywhere, it leaves the writes dirty, based on the view they were made on, together with
//     those that came later. If the transaction had landed, the next commit must not take it for
//     another client's: so its tid is written to the device's folder before it becomes durable.
//     What landed compares equal then, and is not stored again (bigfile/commit.h, C1 and C3).
// D4  When a view moves, the kernel has pages of the older one until they are dropped; a program
//     may write to such a page, and so bring old bytes back. The server is told `settled` only
//     after they were dropped. Until then it takes the older view for the base of what is written,
//     and a commit fails with a conflict where it would undo what another client did. It knows also
//     whether they were dropped, when an agent died in between.
// D5  The storage is open for writing exactly while a writable device is attached (or the lock is
//     waited for: a device that was attached before a restart). A FileStorage is locked against
//     others by that; a ZEO server's storage is not, so of that the commits of others are watched.
// D6  The `tid` that the status tells of a device is a state that no read begun afterwards is older
//     than, in whatever way the program reads. So while the view moves (D4: not settled) it is the
//     older one; and what is read between two equal answers, both settled, is of just that state.
// D7  A device that follows, and of which can not be said for longer than the grace time whether it
//     shows the present, shows nothing: the server refuses to read it, and its pages are dropped.
//     Not while there are uncommitted writes, or while it is claimed: then it does not follow.
// D8  A device that was attached without a size grows with its volume, when its view moves: first
//     the server shows more, then device.json says so, so that no server that is started later
//     shows less, then the kernel is told. It never shrinks, for programs have it mapped: what the
//     volume does not have any more reads as zeros.
//
// The keeper is a thread that watches: a server that died is started again and given its devices
// back, front ends are brought up again, clean devices that follow are moved to the head.
//
// Locks: gate_ > mutex_. mutex_ is never held across I/O.

namespace zbig {

struct DeviceStatus {
  DeviceRecord record;
  std::string node;
  Tid at;                // D6, and so is the next
  bool settled = false;  // nothing newer than `at` is to be seen either
  std::uint64_t size = 0;
  std::uint64_t volume_size = 0;
  std::uint64_t dirty_bytes = 0;
  std::uint64_t overlay_bytes = 0;
  std::string state;  // clean, dirty, stale, committing, recovering, unreachable, failed, kept
  std::string feed;   // following, manual, pinned, mounted, lost
  std::string waits_for;
  std::optional<LastCommit> last_commit;
  std::uint64_t commit_done = 0;  // bytes, while committing
  std::uint64_t commit_total = 0;
  std::string nbd;  // URI; empty while kept
};

struct CommitRequest {
  TransactionMeta meta;
  bool merge = false;  // VolumeCommit::merge
  FreezeChoice freeze;
};

struct CommitOutcome {
  std::optional<Tid> tid;
  std::uint64_t blocks_changed = 0;
  std::uint64_t blocks_merged = 0;
  std::uint64_t bytes_stored = 0;
  std::string warning;  // the transaction is in, but something after it failed
};

struct DetachOutcome {
  std::uint64_t discarded_bytes = 0;
  std::uint64_t kept_bytes = 0;
};

class Database {
 public:
  struct Context {
    const DeviceStore* store;
    Server::Places places;
    std::chrono::seconds feed_grace;  // D7
    std::stop_token stop;             // of the agent
  };

  Database(Context context, std::string url);
  ~Database();

  const std::string& url() const { return url_; }

  // Before start(): a device that the state folder knows of.
  void remember(DeviceRecord record);
  // Starts the keeper (attach does it too). `wait_recovered` returns when it has tried once to
  // bring everything back.
  void start();
  bool wait_recovered(std::chrono::milliseconds timeout);

  // The record names a free name, or the name of a kept device of the same volume, whose
  // uncommitted writes it takes over.
  DeviceStatus attach(DeviceRecord record);
  DetachOutcome detach(const std::string& name, bool discard, bool force);
  CommitOutcome commit(std::span<const std::string> names, const CommitRequest& request);
  CommitOutcome import(const ImportRequest& request, const ImportFile& file);
  void abort(const std::string& name);
  void refresh(const std::string& name);

  // Answers within about a second, whatever hangs (database_status.cc).
  std::vector<DeviceStatus> status();
  // The name of a kept device of the volume, if there is one (of that name, if one is given).
  std::optional<std::string> kept_device(const std::string& volume,
                                         const std::optional<std::string>& name) const;
  bool has(const std::string& name) const;
  // The name of the device that is called so, or has this node.
  std::optional<std::string> name_of(const std::string& device) const;
  bool empty() const;

 private:
  struct Device {
    DeviceRecord record;
    std::unique_ptr<FrontEnd> front;  // front_of()
    Tid at;                           // the server's view
    std::uint64_t size = 0;           // in the server; the gate's holder's
    std::uint64_t volume_size = 0;
    std::uint64_t shown_size = 0;  // D8: what the front end was told
    bool served = false;           // the server has it
    bool settled = false;          // D4; the gate's holder's
    Tid settled_at;                // the view that it was settled at last; the gate's holder's
    std::string drop_problem;      // why it is not settled, where that is known
    bool claimed = false;          // and therefore behind
    bool stale = false;            // D7
    std::string
        feed_problem;  // why it can not be said whether it shows the present; and since when
    std::chrono::steady_clock::time_point feed_lost_at;
    std::chrono::steady_clock::time_point follow_after;  // it is stuck; the gate's holder's
    bool waits_for_room = false;                         // as was logged; the keeper's
    bool committing = false;
    // What the server said last, to whoever asked.
    struct Heard {
      Tid shown;  // D6; none before the first status
      std::uint64_t dirty_bytes = 0;
      std::uint64_t overlay_bytes = 0;
    } heard;
    std::string problem;  // why it does not work at the moment
    std::optional<LastCommit> last_commit;
  };

  // database.cc
  Gate::Pass enter(const std::string& operation);
  Device& find(const std::string& name);
  Device& find_usable(const std::string& name);
  std::string choose_export(const DeviceRecord& record) const;
  void attach_device(DeviceRecord record);
  void serve(Device& device, bool resume);
  FrontEnd& front_of(Device& device);
  void bring_up(Device& device);
  void forget(Device& device, bool discard, bool keep, bool force);
  std::uint64_t dirty_after_sync(Device& device);
  bool end_by_force(Device& device, std::uint64_t& dirty);
  void withdraw(Device& device);
  void close_if_unused();
  void lock_storage();
  void watch_shared();
  ServedDevice served_status(const Device& device, std::chrono::milliseconds timeout) const;
  std::uint64_t last_heard_dirty(const Device& device) const;
  void save(Device& device);
  void change_record(Device& device, const std::function<void(DeviceRecord&)>& change);
  void note_size(Device& device, std::uint64_t size, std::uint64_t volume_size);
  void promise_size(Device& device);
  void show_size(Device& device);
  std::vector<Device*> attached_devices();

  // database_view.cc
  bool sync_unless_full(Device& device, std::chrono::milliseconds patience);
  bool move_view(Device& device, const std::string& to, std::chrono::milliseconds patience);
  bool note_claim(Device& device);
  void refuse_claimed(Device& device);
  void note_moved(Device& device, const Json& reply);
  void show_move(Device& device, const Json& reply, std::chrono::milliseconds patience);
  void settle(Device& device, const StalePages& pages, std::chrono::milliseconds patience);
  void say_settled(Device& device);
  void follow(std::optional<Tid> made = std::nullopt);
  void catch_up(std::span<Device* const> devices, Tid head);
  void catch_up(Device& device, const ServedDevice& served, Tid head);
  void feed_lost(Device& device, const std::string& why);
  void make_stale(Device& device);
  void feed_works(Device& device);

  // database_commit.cc
  struct Frozen;
  void sync_all(std::span<Device* const> devices, std::chrono::milliseconds patience);
  std::optional<ProgramFreeze> stop_programs(std::span<Device* const> devices,
                                             const FreezeChoice& choice);
  std::vector<Frozen> freeze_all(std::span<Device* const> devices);
  void release(std::span<Frozen> frozen) noexcept;
  CommitOutcome commit_frozen(std::span<Frozen> frozen, const CommitRequest& request);
  std::optional<Tid> tid_of_voted(const std::string& mark) const;
  std::set<Tid> own_commits_after(const DeviceRecord& record, Tid base) const;
  void refuse_change_below(Device& device, const Volume& volume, Tid base, Tid head,
                           const std::set<Tid>& own);
  void note_commit(std::span<Device* const> devices, const std::optional<Tid>& tid,
                   const std::string& result);

  // database_keeper.cc
  void keep(std::stop_token stop);
  void look_after();
  std::string recover();
  void recover_device(Device& device, const ServedDevice* known);
  void watch_processes();
  void watch_room();
  void wake_keeper();

  const Context context_;
  const std::string url_;
  Gate gate_;
  Server server_;                     // started and stopped by the gate's holder
  std::unique_ptr<Storage> storage_;  // the gate's holder's
  // Of a database that others write at the same time: wakes the keeper at each commit. The gate's
  // holder's.
  std::unique_ptr<Storage> watched_storage_;
  std::unique_ptr<Subscription> watch_;
  std::vector<Fd> watched_;  // the keeper's: copies of pidfds

  mutable std::mutex mutex_;
  std::map<std::string, std::unique_ptr<Device>> devices_;  // guarded by mutex_
  std::string lock_problem_;                                // guarded by mutex_
  std::atomic<std::uint64_t> commit_done_ = 0;
  std::atomic<std::uint64_t> commit_total_ = 0;

  std::condition_variable recovered_changed_;
  bool recovered_ = false;                            // guarded by mutex_
  std::chrono::steady_clock::time_point next_try_{};  // the keeper's
  std::chrono::milliseconds backoff_{0};              // the keeper's
  bool server_lived_ = false;                         // when it last tried; the keeper's
  std::chrono::steady_clock::time_point next_look_at_head_{};

  Fd wake_fd_;
  std::jthread keeper_;  // the last member: ends first
};

}  // namespace zbig
