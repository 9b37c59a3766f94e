// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "bigfile/extent.h"
#include "bigfile/volume.h"
#include "zodb/error.h"

// Commit: turns dirty extents of one or more volumes into one ZODB transaction.
//
// Blocks are taken in ascending order and one at a time: what a block needs of its new bytes is
// read from the source, encoded, compared with what the database holds, and stored; then it is
// forgotten. The peak of memory is a few blocks, whatever is dirty. Reading ahead and encoding
// overlap with storing.
//
// C1  What is equal to the database is not stored; a transaction without a change is never begun,
//     so a commit may be repeated after any crash.
// C2  A block any of whose chunks changed has its ZBlk stored (peers learn of the change through
//     it).
// C3  A block that another transaction changed after `base` is a conflict, unless what is dirty of
//     it already equals the head. The transaction fails as a whole; nothing is changed anywhere.
//     With `merge` such a block takes the others' pages where this commit changes none of them, and
//     it is a conflict where both changed one page (bigfile/block_merge.h).
// C4  Records are those that wendelin.core, BTrees and ZODB would write for the same data.

namespace zbig {

enum class BlockFormat {
  kKeep,  // an existing block keeps its format, a new one is ZBlk0
  kZBlk0,
  kZBlk1,
  kAuto,  // wendelin.core's algorithm
};
// "ZBlk0", "ZBlk1", "auto" exactly; nothing for anything else.
std::optional<BlockFormat> parse_block_format(std::string_view text);
// $WENDELIN_CORE_ZBLK_FMT, as the original reads it; ZBlk0 if unset. Throws Invalid for another
// value.
BlockFormat block_format_from_environment();

// The new content of a volume, where it is dirty.
class DirtySource {
 public:
  virtual ~DirtySource() = default;
  // What was written since `base`.
  virtual const ExtentList& extents() const = 0;
  // Bytes of one or more dirty extents (the range lies within dirty extents). One thread at a time.
  virtual void read(std::uint64_t offset, std::span<std::byte> out) = 0;
};

struct VolumeCommit {
  Volume volume;
  Tid base;  // the view on which the changes were made
  DirtySource* source = nullptr;
  BlockFormat format = BlockFormat::kZBlk0;
  bool merge = false;  // C3
  // Transactions after `base` that are no others': earlier commits of the same changes, whose end
  // was not heard of. Each was checked against the same `base` and merged nothing, so where one is
  // the newest to change a block, nobody else has changed the block since.
  std::set<Tid> own = {};
};

struct BlockConflict {
  std::string volume;
  std::uint64_t block = 0;
  std::uint64_t offset = 0;  // of the block, in bytes
  Tid base_tid;
  Tid tid;  // the transaction that won, with what it says of itself
  std::string user;
  std::string description;
  ExtentList pages;  // that both changed, in bytes of the volume; known only if it was to be merged
};

class CommitConflict : public ErrorOf<ErrorCode::kConflict> {
 public:
  CommitConflict(const std::string& sentence, std::vector<BlockConflict> blocks)
      : ErrorOf(sentence), blocks(std::move(blocks)) {}
  std::vector<BlockConflict> blocks;
};

struct CommitResult {
  std::optional<Tid> tid;  // nothing: there was nothing to commit
  std::uint64_t blocks_changed = 0;
  std::uint64_t blocks_merged = 0;  // that others had changed too
  std::uint64_t objects_stored = 0;
  std::uint64_t bytes_stored = 0;  // of records
};

// Dirty bytes dealt with so far, of all; called about ten times a second at most.
using ProgressFn = std::function<void(std::uint64_t done, std::uint64_t total)>;

// Called when the transaction is voted, with its voted_mark(), just before it becomes part of the
// database; and whether others' changes were merged into it.
using VotedFn = std::function<void(const std::string& mark, bool merged)>;

// Throws CommitConflict, NoSpace, ReadOnly, Unavailable, Corrupt. Whatever it throws, the database
// is unchanged.
CommitResult commit(Storage& storage, std::span<const VolumeCommit> volumes,
                    const TransactionMeta& meta, const ProgressFn& progress,
                    const VotedFn& voted = {});

}  // namespace zbig
