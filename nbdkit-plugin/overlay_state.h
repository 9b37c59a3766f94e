// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "nbdkit-plugin/file.h"
#include "zodb/ids.h"

// The state file of an overlay: which layers count, and on which view they were written.
//
// It has two slots of one sector, at 0 and at 4096. Each holds lines of text with a sequence number
// and, last, a checksum. They are written in place, never the one that holds what was last synced,
// and the valid slot with the higher number counts. (Replacing the file by rename needs an fsync of
// the new file and of the directory each time; in place it is one fdatasync of a block that is
// there already, and none where only a crash of the server is to be survived.)

namespace zbig {

// A layer as the state names it.
struct NamedLayer {
  std::uint64_t number = 0;
  // A flush acknowledged pages in it, so its files must be there, whatever happened.
  bool flushed = false;
  bool operator==(const NamedLayer&) const = default;
};

struct OverlayState {
  std::uint64_t size = 0;  // of the device, in bytes
  Tid view;                // what the pages below the layers are read from
  Tid base;                // the oldest view that any page was written on
  NamedLayer bottom;
  NamedLayer top;       // its pages cover those of the bottom
  std::string boot_id;  // the run of the machine in which the overlay was opened
  bool operator==(const OverlayState&) const = default;
};

std::string format_slot(const OverlayState& state, std::uint64_t sequence);
// Nothing unless the slot is whole.
struct Slot {
  OverlayState state;
  std::uint64_t sequence = 0;
};
std::optional<Slot> parse_slot(std::string_view text);

class StateFile {
 public:
  // Makes DIRECTORY/state, all at once.
  static StateFile create(const std::string& directory, const OverlayState& state);
  // Nothing if there is none; Corrupt if no slot is whole.
  static std::optional<StateFile> load(const std::string& directory);

  const OverlayState& state() const { return slot_.state; }
  // In the page cache when it returns: a crash of the server can't undo it.
  void save(const OverlayState& state);
  // What was saved is on the disk.
  void sync();
  bool synced() const { return synced_; }

 private:
  StateFile(File file, Slot slot, std::uint64_t offset)
      : file_(std::move(file)), slot_(std::move(slot)), offset_(offset) {}
  void write_slot() const;

  File file_;
  Slot slot_;             // the newest
  std::uint64_t offset_;  // of it in the file
  bool synced_ = true;
  bool sync_failed_ = false;
};

// What the kernel calls this run of the machine.
std::string boot_id();

}  // namespace zbig
