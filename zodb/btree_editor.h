// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "zodb/btree.h"

// BTreeEditor: changes a BTree in one transaction.
//
// A unit of work: it loads the nodes that the changed keys lead to, changes copies of them exactly
// as BTrees does (splits at the same places, separators rewritten in the same cases, the same nodes
// stored), and in the end says what to store, with which base serials, and which nodes were read
// to decide it. The tree in the database is untouched; an editor that is thrown away leaves
// nothing behind but unused oids. After an exception it is good for nothing else.
//
// E1  A node that is stored has the base serial of exactly the revision that was read.
// E2  Every tree node on the way to a key that was inserted, replaced or deleted is stored, or in
//     checks(): otherwise another client could move the bucket out of the tree meanwhile.
// E3  A node that was made and became empty again in the same unit is not stored.

namespace zbig {

struct BTreeLimits {
  std::size_t max_leaf = 60;       // keys in a bucket
  std::size_t max_internal = 500;  // children of a tree; of the root just under twice as many
};

class BTreeEditor {
 public:
  using NewOid = std::function<Oid()>;

  // Edits the tree `root` as of the source's tid. `cls`: kLOBTree or kIOBTree.
  BTreeEditor(const NodeSource& source, Oid root, KnownClass cls, NewOid new_oid,
              BTreeLimits limits = {});
  // A new tree, whose root is to be stored as `root`.
  static BTreeEditor create(Oid root, KnownClass cls, NewOid new_oid, BTreeLimits limits = {});
  ~BTreeEditor();
  BTreeEditor(BTreeEditor&&) noexcept;

  // With the changes made so far.
  std::optional<Ref> get(std::int64_t key) const;
  std::optional<std::int64_t> max_key() const;
  void for_each(std::int64_t first, std::int64_t last, const BTree::Visit& visit) const;

  // Inserts or replaces. Throws Invalid for a key out of the tree's range.
  void set(std::int64_t key, const Ref& value);
  // False: there was no such key.
  bool erase(std::int64_t key);
  // Drops all keys at once; the buckets are left to the garbage collection.
  void clear();

  bool changed() const;

  struct Store {
    Oid oid;
    Tid base;  // kNoTid: a new object
    Bytes record;
  };
  struct Check {
    Oid oid;
    Tid serial;
  };
  // What to store, changed nodes first, then new ones; and which nodes to check. To be called once
  // everything is done.
  std::vector<Store> stores(Flavour flavour) const;
  std::vector<Check> checks() const;

 private:
  class Work;
  explicit BTreeEditor(std::unique_ptr<Work> work);
  std::unique_ptr<Work> work_;
};

}  // namespace zbig
