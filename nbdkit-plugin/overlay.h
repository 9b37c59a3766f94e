// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bigfile/extent.h"
#include "bigfile/view.h"
#include "nbdkit-plugin/file.h"
#include "nbdkit-plugin/overlay_layer.h"
#include "nbdkit-plugin/overlay_snapshot.h"
#include "nbdkit-plugin/overlay_state.h"
#include "nbdkit-plugin/padded_view.h"
#include "nbdkit-plugin/write_gate.h"

// Overlay: a view of a volume, and the uncommitted writes of one device above it.
//
// Problem. A program's stores reach the server whenever the kernel likes, hours before a commit or
// seconds after one began, and the kernel drops its copy as soon as they are answered. So they must
// be kept until a commit made them a transaction, through crashes of the server; a commit must see
// a state that stands still, while the program goes on writing; and if it fails, its writes must be
// dirty as before.
//
// Shape. Two layers (see Layer) lie over the view: *bottom* and *top*; where both have a page, top
// counts. The phase says what they mean:
//
//   plain     writes go to the bottom; the top is empty, a spare that waits for the next freeze
//   frozen    the bottom stands still, a commit reads it; writes go to the top
//   unfolded  the commit failed: both are dirty; writes go to the top, until it was folded into the
//             bottom and the phase is plain again
//
//                 freeze                    committed: bottom goes, top becomes bottom
//        plain ------------> frozen -----------------------------------> plain
//          ^                    | unfreeze
//          +---- unfolded <-----+
//            fold
//
// The state file always names both layers, so freezing needs no I/O: one pointer is swapped. And
// since a page of the top always counts over the bottom's, the files mean the same in every phase:
// whatever state a crash leaves, folding top into bottom at open gives back all that was dirty.
//
// What holds:
//
// O1  A page is written as a whole. Who writes a part of one takes the rest from what the device
//     shows (layers, view) while it holds the page's lock, so two writers of parts of one page both
//     prevail, and a page in a layer needs nothing below it.
// O2  A reader takes one snapshot (view, layers, phase) and finishes on it. Every step that changes
//     what is below a page (committed, abort, moving the view) is the swap of one pointer; so a
//     reader sees a transaction whole or not at all, and waits for no step.
// O3  A writer is inside the gate while it writes to a layer and marks the page, and every swap is
//     done with the gate closed. So no write lands in a layer that just froze or was dropped.
// O4  The state file always has the view and the base, so that after a crash the device can go on
//     where it was.
// O5  What flush() acknowledged survives a loss of power: data, then the durable bits, then the
//     directory, then a state that says that the layer must be there. Layers that were never
//     flushed may be missing after a loss of power, and count as empty.
// O6  A layer's files go only after a state without it is on the disk.
// O7  The base is a view such that whatever another client changed after it, in a block that is
//     dirty here, has to be a conflict. Whoever writes may have seen a page long ago: the kernel
//     keeps copies, and has some for a while after the view moved. Until settled() tells that there
//     are none of before the move, `stale` has where they may be, and the base stays; it stays also
//     if a page was written there meanwhile. While nothing is stale or dirty it is the view's tid.
//
// O8  A layer that a flush promised something of, and that a commit dropped, is gone from the state
//     on the disk before the next freeze. After a loss of power it would come back as dirty: as
//     long as no other commit followed that is harmless, for what landed compares equal, and a
//     commit of it stores nothing (rule 5 of docs/architecture.md); later it would undo the other.
//     What no flush promised never comes back (O5), so that a commit needs no sync for it.
//
// O9  When the view becomes larger than the device, the device grows (DeviceSize): its layers are
//     opened anew, larger, in the same step in which the view moves. A larger size is on the disk
//     before a file is as large. Pages that were not there before are stale nowhere (O7).
//
// Locks, in this order: sync > control > page locks > gate > state > snapshot. The page locks are
// held while the rest of a page is read from the view, no other lock is.

namespace zbig {

class Overlay {
 public:
  // What the state file says: the view, and whether there are uncommitted writes above it.
  struct Recorded {
    Tid view;
    bool dirty = false;
  };
  // The view to begin with. It must be the recorded one if that is dirty. Nothing is recorded for a
  // new overlay, and for a clean one of before a loss of power.
  using ViewAt = std::function<std::shared_ptr<const View>(std::optional<Recorded> recorded)>;

  // Opens the overlay in `directory`, or makes one. One with uncommitted writes is as large as it
  // was, at least. Throws Busy if it is open already, Invalid if it has writes and was larger than
  // `size.fixed`, Corrupt, and what view_at throws.
  static std::unique_ptr<Overlay> open(const std::string& directory, DeviceSize size,
                                       const ViewAt& view_at);
  // Syncs what can be synced.
  ~Overlay();
  Overlay(const Overlay&) = delete;
  Overlay& operator=(const Overlay&) = delete;

  std::uint64_t size() const { return snapshot()->size(); }
  const std::string& directory() const { return directory_; }

  // --- what a device does; any thread, ranges lie within the size

  void read(std::uint64_t offset, std::span<std::byte> out) const { snapshot()->read(offset, out); }
  void write(std::uint64_t offset, ByteView bytes);
  void zero(std::uint64_t offset, std::uint64_t length);
  // Everything that was answered before it began is safe from a loss of power.
  void flush();
  // What is not known to be zeros: dirty pages, and the data of the view.
  ExtentList data_extents(std::uint64_t offset, std::uint64_t length) const {
    return snapshot()->data_extents(offset, length);
  }
  std::shared_ptr<const View> view() const { return snapshot()->view; }

  // --- what the agent does; any thread, one after another

  // What is dirty from now on belongs to a commit. O(1). Throws Busy if it is frozen.
  void freeze();
  // The frozen writes are dirty again. Nothing happens if it is not frozen. If folding fails (no
  // space) it is tried again at the next freeze; no write is lost meanwhile.
  void unfreeze();
  //
  // The next three move the view. `changed`: where other clients changed something between the old
  // view and this one (O7); nothing: anywhere.
  //
  // The frozen writes are in `view`. Throws Busy if it is not frozen.
  void committed(std::shared_ptr<const View> view, const std::optional<ExtentList>& changed);
  // Gives up all writes and returns where they were. Throws Busy while frozen.
  ExtentList abort(std::shared_ptr<const View> view, const std::optional<ExtentList>& changed);
  // Throws Busy if anything is dirty.
  void move_view(std::shared_ptr<const View> view, const std::optional<ExtentList>& changed);
  // Nobody has a copy of a page of before the last move of the view, nor a write to one on its way.
  // Throws Busy while frozen.
  void settled();
  // Brings to the disk, and removes from it, what a step above left for later, and makes the layer
  // that the next one needs.
  void tidy();
  // Removes the overlay's files. The object must not be used afterwards.
  void destroy();

  // Removes at once the files of layers that were dropped, if there are any: somebody needs room.
  bool remove_doomed();

  struct Status {
    Tid at;
    Tid base;
    std::uint64_t dirty_bytes = 0;   // not counting what is frozen
    std::uint64_t frozen_bytes = 0;  // of the commit under way
    bool settled = true;
    std::string full;   // why writers wait for room; empty if none does. Set by Device
    std::string error;  // why the last fold or flush failed; empty if it did not
  };
  Status status() const;
  std::uint64_t bytes_on_disk() const;

  // --- the frozen writes, as a commit reads them

  class Frozen;
  // Throws Busy if it is not frozen.
  std::shared_ptr<const Frozen> frozen() const;

 private:
  using Phase = OverlayPhase;
  using Snapshot = OverlaySnapshot;
  using SnapshotPtr = std::shared_ptr<const Snapshot>;

  Overlay(std::string directory, DeviceSize wanted, File directory_file, StateFile state,
          std::uint64_t next_layer, Snapshot snapshot);

  SnapshotPtr snapshot() const;
  void swap_in(Snapshot next);
  void set_failure(const std::string& sentence);
  static Snapshot load_layers(const std::string& directory, const OverlayState& state,
                              std::uint64_t size);
  // The range widened to whole pages (O1). `bytes`: nothing to write zeros.
  void write_pages(std::uint64_t offset, std::uint64_t length, std::optional<ByteView> bytes);
  std::shared_ptr<Layer> new_layer();
  // Whether the device grows (O9) when its view is this one; then the lock is sync_mutex_'s: nobody
  // syncs a layer that is opened anew.
  std::unique_lock<std::mutex> growing_with(const View& view);
  // Makes the layers of `next` as large as its view needs. The gate is closed, sync_mutex_ held.
  void grow(Snapshot& next);
  // From unfolded to plain.
  void fold();
  // The last part of a step: saves the state of `next` and swaps it in. The gate is closed.
  void save_and_swap(Snapshot next);
  // The state and what follows from it are on the disk. state_mutex_ is held.
  void sync_state();

  const std::string directory_;
  const DeviceSize wanted_;
  const File directory_file_;  // holds the lock
  PageLocks page_locks_;
  WriteGate gate_;
  std::mutex control_mutex_;
  std::mutex sync_mutex_;

  std::uint64_t next_layer_ = 0;  // guarded by control_mutex_
  std::shared_ptr<Layer> spare_;  // likewise; empty, and the state does not name it

  std::mutex state_mutex_;
  StateFile state_;                    // guarded by state_mutex_
  std::vector<std::uint64_t> doomed_;  // likewise; layers to remove once the state is synced (O6)
  std::uint64_t doomed_pages_ = 0;     // likewise
  bool dropped_promised_ = false;      // likewise; the state must be synced before a freeze (O8)

  mutable std::mutex snapshot_mutex_;
  SnapshotPtr snapshot_;  // guarded by snapshot_mutex_
  std::string failure_;   // likewise; see Status::error
};

// A frozen overlay: its dirty extents, and what the device showed when it was frozen. Throws Failed
// once the overlay is no longer frozen.
class Overlay::Frozen {
 public:
  Frozen(const Overlay& overlay, Snapshot snapshot)
      : overlay_(overlay), snapshot_(std::move(snapshot)) {}
  ExtentList dirty_extents(std::uint64_t offset, std::uint64_t length) const;
  void read(std::uint64_t offset, std::span<std::byte> out) const;
  // The dirty extents' bytes, each at its own offset. Who reads it must know by other means that
  // the overlay is still frozen.
  std::shared_ptr<const File> file() const { return {snapshot_.bottom, &snapshot_.bottom->data()}; }
  Tid base() const { return snapshot_.base; }

 private:
  void check() const;

  const Overlay& overlay_;
  const Snapshot snapshot_;
};

}  // namespace zbig
