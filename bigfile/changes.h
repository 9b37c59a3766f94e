// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <vector>

#include "bigfile/extent.h"
#include "bigfile/volume.h"

// What of a volume changed between two states, computed from the object graph.
//
// A block changes in a transaction if its entry in the block table changes (it appears, vanishes,
// or another ZBlk takes its place), or if its ZBlk, or for ZBlk1 anything below it, is stored in
// that transaction. Splitting, merging and rebalancing of tree nodes change no block. Of an array
// that became longer or shorter, what it gained or lost is changed too. The answer
// may be wider than the bytes that differ, never narrower. See docs/formats/zbigfile.md, and
// section "which blocks changed" there.

namespace zbig {

struct Changes {
  // Everything may differ: the file was replaced (another block size, another block table, created,
  // deleted).
  bool whole_file = false;
  ExtentList extents;          // where content may differ, clipped to the larger of the two sizes
  std::uint64_t old_size = 0;  // View::size() at `from`; 0 if the volume did not exist
  std::uint64_t new_size = 0;
};

// Between the states `from` and `to` (either order) of the volume; `changed` = the oids stored in
// between. Throws NotFound if it exists at neither.
Changes changed_extents(const Storage& storage, const Volume& volume, Tid from, Tid to,
                        std::span<const Oid> changed);

// As extents whose bytes really differ, by comparing content (what `zbig diff` and `log` print).
ExtentList differing_extents(const Storage& storage, const Volume& volume, Tid from, Tid to);

// Blocks with the newest transaction in (from, to] that changed each (for conflict reports).
struct BlockChange {
  std::uint64_t block = 0;
  Tid tid;
};
std::vector<BlockChange> changed_blocks(const Storage& storage, const Volume& volume, Tid from,
                                        Tid to);

}  // namespace zbig
