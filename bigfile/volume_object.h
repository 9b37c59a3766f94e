// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>
#include <string>

#include "bigfile/volume.h"
#include "zodb/record.h"

// A volume from the object that it is: a ZBigFile, or a ZBigArray and its ZBigFile.

namespace zbig {

// The volume whose object is `oid`, as of `at`. Nothing if there is no such object then; throws
// Invalid if the object is something else, Corrupt.
std::optional<Volume> volume_of_object(const Storage& storage, Oid oid, const std::string& path,
                                       Tid at);
// The same volume at another time (by its oid, whatever its path leads to then).
inline std::optional<Volume> volume_at(const Storage& storage, const Volume& volume, Tid at) {
  return volume_of_object(storage, volume.oid, volume.path, at);
}

// Of an array its bytes, of a bare file (last_block + 1) * blksize, where `last_block` is the last
// key of the block table. Throws Unsupported above 2^63 - 1, Corrupt for a block below 0.
std::uint64_t volume_size(const Volume& volume, std::optional<std::int64_t> last_block);

}  // namespace zbig
