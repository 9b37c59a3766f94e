// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "zodb/storage.h"

// The catalogue: which volumes a database holds, and what is known of each.
//
// A volume is a ZBigFile, or a ZBigArray over one, as the user names it: its path from the root
// object through persistent mappings (PersistentMapping, PersistentDict of old, OOBTree and other
// BTree folders with string keys), or `oid:HEX`. Paths are walked, never the whole database.

namespace zbig {

enum class VolumeKind { kFile, kArray };

// The geometry that a ZBigArray gives to its file.
struct ArrayInfo {
  std::string dtype;  // numpy's dtype.str, "<f8"; "|V16" for a structured one
  std::vector<std::uint64_t> shape;
  char order = 'C';          // or 'F'
  std::uint64_t nbytes = 0;  // product of shape, times the item size
};

// A volume as of one tid.
struct Volume {
  std::string path;  // "/A/B", or "oid:1a2b" where it was asked for so
  Oid oid;           // of the array, or of the file if there is no array
  Oid zfile;         // of the ZBigFile
  Tid serial;        // of the object `oid`
  VolumeKind kind = VolumeKind::kFile;
  std::uint64_t blksize = 0;
  Oid blktab;  // of the LOBTree: block number -> ZBlk
  std::optional<ArrayInfo> array;
};

// The volume that `name` means at `at`. Throws NotFound ("no volume /A in ...: /A is a persistent
// mapping with a, b, c"), Invalid for a name that is neither a path nor oid:HEX, Corrupt.
Volume find_volume(const Storage& storage, const std::string& name, Tid at);

// Every volume that can be reached from the root through mappings and BTree folders, by path. A
// folder that is reached twice is listed once; a broken object on the way is passed to `on_error`
// and left out.
std::vector<Volume> list_volumes(const Storage& storage, Tid at,
                                 const std::function<void(const std::string&)>& on_error);

struct NewVolume {
  std::uint64_t blksize = 2u << 20;
  // Absent: a bare ZBigFile. Its size follows from its last block, so for it to have `raw_size`
  // bytes (rounded up to whole blocks) an empty ZBlk0, which reads as zeros, is stored as its last
  // block.
  std::optional<ArrayInfo> array;
  std::uint64_t raw_size = 0;
  std::string user;
  std::string description;
};

// Makes the volume `path`, and the mappings on the way that do not exist, in one transaction; makes
// the root object if the database has none. Returns its tid. Throws Invalid if something is there
// already.
Tid create_volume(Storage& storage, const std::string& path, const NewVolume& volume);

}  // namespace zbig
