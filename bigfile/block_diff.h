// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_set>
#include <vector>

#include "bigfile/chunk_table.h"
#include "bigfile/extent.h"
#include "bigfile/objects.h"
#include "bigfile/volume.h"

// BlockDiff: which blocks of a file differ between two states, and where in them.
//
// Given are the oids stored in between, D. A block may differ only if
//   (a) its entry in the block table differs: found by comparing the leaves of both trees, of which
//       those are left out that are the same object over the same keys and not in D; or
//   (b) its ZBlk is in D; or
//   (c) something below its ZBlk1 is in D.
// For (b) all leaves of the table are looked at, as nothing leads from a ZBlk to its block. For (c)
// too, but wendelin.core stores the ZBlk1 with whatever changes below it (but for one case, see
// docs/formats/zbigfile.md), so the tables of a volume's other ZBlk1s are walked only if D has
// chunks or chunk table nodes that no ZBlk1 in D accounts for.
//
// Nodes that split, merged or moved change nothing by themselves.

namespace zbig {

struct BlockDelta {
  std::uint64_t block = 0;
  std::optional<Ref> before;  // nothing: a hole
  std::optional<Ref> after;
  ExtentList extents;  // within the block: what may differ; what is stored beyond them is zero
  Tid tid;             // the newest transaction that changed the block
};

class BlockDiff {
 public:
  // Both states have the same block table and block size. `changed`: D, ascending.
  BlockDiff(const Storage& storage, const Volume& volume, Tid from, Tid to,
            std::span<const Oid> changed);

  // Ascending. Throws Corrupt.
  std::vector<BlockDelta> blocks();

 private:
  struct Entry {
    Ref zblk;
    Tid leaf_serial;
  };
  // A leaf of the block table, found without loading it.
  struct Slot {
    Oid oid;
    std::int64_t first;
    std::int64_t last;
    bool operator==(const Slot&) const = default;
  };
  struct Pair {
    std::optional<Entry> before;
    std::optional<Entry> after;
  };
  using Pairs = std::vector<std::pair<std::int64_t, Pair>>;

  bool is_changed(Oid oid) const;
  std::vector<Slot> slots(const Objects& objects) const;
  template <class Visit>
  void visit_leaves(const Objects& objects, std::span<const Slot> slots, const Visit& visit) const;
  void pair_up();
  void add_changed_zblks();
  void add_unexplained();
  std::vector<Oid> unexplained();
  void mark_table(const Objects& objects, Oid zblk1);
  BlockDelta delta_of(std::int64_t key, const Pair& pair) const;
  void compare_chunks(BlockDelta& delta, Oid before, Oid after) const;
  Tid newest_node(std::int64_t key) const;

  const Volume& volume_;
  const std::span<const Oid> changed_;
  ObjectCaches before_caches_;
  ObjectCaches after_caches_;
  const Objects before_;
  const Objects after_;

  std::vector<Slot> same_slots_;  // in both trees, unchanged
  Pairs pairs_;                   // blocks that may differ
  std::unordered_set<std::int64_t> paired_;
  std::unordered_set<Oid> explained_;
};

}  // namespace zbig
