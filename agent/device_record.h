// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "bigfile/commit.h"
#include "zodb/ids.h"

// What is kept of a device on disk: STATE/devices/NAME/device.json, beside the overlay's folder.
// Everything else of a device is found out again after a restart.

namespace zbig {

enum class FrontEndKind { kFuse, kNbd, kSocket };

struct LastCommit {
  std::optional<Tid> tid;  // nothing: there was nothing to commit, or it failed
  std::string time;        // ISO 8601, of its end
  std::string result;      // "committed", "nothing to commit", or the error
};

struct DeviceRecord {
  std::string name;
  std::string url;     // canonical
  std::string volume;  // as the user named it
  std::string export_name;
  bool read_only = false;
  std::optional<Tid> pinned;  // attached at a transaction; never moves
  bool follow = true;         // a clean view follows the head by itself
  BlockFormat format = BlockFormat::kZBlk0;
  std::uint64_t size = 0;        // asked for; 0: it grows with the volume, and has
  std::uint64_t least_size = 0;  // so many bytes, or is about to; it never has fewer again
  bool wait_for_room = true;     // writers, when the disk of the overlay is full
  FrontEndKind front_end = FrontEndKind::kFuse;
  std::string fuse_path;                     // of the FUSE file
  bool made_fuse_path = false;               // the mount point is ours to remove
  std::string instance;                      // of the kernel device: KernelNode's N1
  std::optional<std::uint32_t> nbd_index;    // of /dev/nbdX
  bool nbd_index_asked = false;              // by the user: no other will do
  std::map<std::string, std::string> facts;  // of the volume at attach: oid, dtype, shape
  std::string link;                          // a symbolic link to the node, or empty
  bool complete = false;                     // attach has finished; otherwise it was cut short
  bool attached = true;  // false: detached by force; only its uncommitted data are kept
};

std::string to_text(const DeviceRecord& record);
// Throws Failed for a text that this version did not write.
DeviceRecord device_record_from(const std::string& text);

std::string_view format_word(BlockFormat format);
std::string_view front_end_word(FrontEndKind kind);
std::optional<FrontEndKind> parse_front_end(std::string_view word);

// A name for people and file names: 1 to 64 of [A-Za-z0-9._-], the first a letter or digit; not
// "frozen" or "growing", for `VOLUME#frozen` and `VOLUME#growing` are exports of their own.
bool valid_device_name(const std::string& name);
// The last part of a volume's path, made such a name.
std::string device_name_from(const std::string& volume);

// The folder of devices.
class DeviceStore {
 public:
  explicit DeviceStore(const std::string& state_directory);

  std::string directory(const std::string& name) const;
  std::string overlay(const std::string& name) const { return directory(name) + "/overlay"; }
  // Of what a commit has stopped (agent/program_freeze.h).
  std::string freeze_mark(const std::string& name) const { return directory(name) + "/frozen"; }

  void save(const DeviceRecord& record) const;
  // For people only, so it costs no fsync: after loss of power it may be missing.
  void save_last_commit(const std::string& name, const LastCommit& last) const noexcept;
  std::optional<LastCommit> last_commit(const std::string& name) const noexcept;
  void remove(const std::string& name) const;

  // Transactions of the device that were voted: they may be in the database, and later than what
  // its uncommitted writes are based on. Without fsync: what is forgotten by a loss of power makes
  // the device's own commit look like another client's, which is a conflict and no loss.
  // Each is kept as its tid, or its StorageTransaction::voted_mark() until the tid is known.
  void save_voted(const std::string& name, const std::vector<std::string>& marks) const noexcept;
  std::vector<std::string> voted(const std::string& name) const noexcept;
  // The view that a front end's pages are of, which only a device without overlay needs to be told.
  // Without fsync: after a loss of power there are no pages.
  void save_view(const std::string& name, Tid at) const noexcept;
  Tid view(const std::string& name) const noexcept;

  struct Loaded {
    std::vector<DeviceRecord> records;
    std::vector<std::string>
        unreadable;  // names whose device.json cannot be used; left as they are
  };
  Loaded load() const;

 private:
  std::string devices_;
};

}  // namespace zbig
