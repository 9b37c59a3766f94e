// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "zodb/btree.h"

// TreeCheck: every node of a BTree, also below and beside damaged ones (as BTrees.check does, which
// stops at the first defect).
//
// Beyond what a descent demands (keys increase, and lie in the range of the parents) it looks at
// what only iteration in Python and deletion use: each bucket names the next one, and each tree
// node its first bucket; and no node but the root is empty.
//
// A node that has keys passes only in one place of the tree, as the ranges of siblings are
// disjoint, and a node without keys has one child: so a hostile tree costs no more than its nodes.

namespace zbig {

class TreeCheck {
 public:
  using OnDefect = std::function<void(const std::string& sentence)>;
  using OnValue = std::function<void(std::int64_t key, const Ref& value)>;

  TreeCheck(const Storage& storage, Tid at, KnownClass cls, OnDefect on_defect)
      : storage_(storage), at_(at), cls_(cls), on_defect_(std::move(on_defect)) {}

  // Passes every key and value in sound nodes to `on_value`, ascending.
  void walk(Oid root, const OnValue& on_value);

 private:
  struct Range {
    std::int64_t first = kMinKey;
    std::int64_t last = kMaxKey;
  };

  // Gives the first bucket below `oid`, if it is known and has an oid.
  std::optional<Oid> node(Oid oid, Range range, std::size_t depth, const OnValue& on_value);
  std::optional<Oid> children(const LoadedNode& tree, Range range, std::size_t depth,
                              const OnValue& on_value);
  bool keys_in_order(const LoadedNode& node, Range range);
  void chain(const LoadedNode& bucket);
  void defect(Oid oid, const std::string& what);

  const Storage& storage_;
  Tid at_;
  KnownClass cls_;
  OnDefect on_defect_;

  // The chain of buckets, as far as it was walked without a gap.
  std::optional<Oid> previous_;  // the bucket before
  std::optional<Oid> expected_;  // what it names as the next one
  bool chain_known_ = false;
};

}  // namespace zbig
