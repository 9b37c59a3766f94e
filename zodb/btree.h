// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "zodb/bytes.h"
#include "zodb/class_name.h"
#include "zodb/ids.h"
#include "zodb/pickle_value.h"
#include "zodb/pickle_writer.h"
#include "zodb/record.h"
#include "zodb/storage.h"

// BTrees with integer keys and references as values: LOBTree (64-bit keys) and IOBTree (32-bit).
//
// A tree is a database object whose children are trees, or buckets that hold the keys and values,
// each an object of its own. A tree of a few keys has its only bucket inside its own record. See
// docs/formats/btree.md.
//
// A tree as of one tid never changes, and nodes are asked for one by one through NodeSource, so
// that who reads a tree often can put a cache there (bigfile's View does).
//
// T1  Keys in a node strictly increase, and lie in the range that the node's parents leave to it.
//     This is checked on every descent; it also makes a cycle of nodes impossible to walk for long:
//     ranges only get narrower, and at most kMaxDepth nodes are on a path.
// T2  A node that breaks a rule throws Corrupt, which names its oid.

namespace zbig {

// A reference as a node holds it.
struct Ref {
  Oid oid;
  std::optional<ClassId> cls;  // nothing with RefForm::kOid
  RefForm form = RefForm::kClass;
  bool operator==(const Ref&) const = default;
};
// The reference that is written today to an object of a known class.
inline Ref ref_to(Oid oid, KnownClass cls) { return {oid, ClassId::of(cls), RefForm::kClass}; }

struct BTreeNode {
  enum class Shape : std::uint8_t {
    kEmpty,     // a tree without keys
    kEmbedded,  // a tree with its only bucket inside
    kTree,      // a tree with children of their own
    kBucket,
  };
  explicit BTreeNode(ClassId cls, Shape shape = Shape::kEmpty) : shape(shape), cls(cls) {}

  Shape shape;
  ClassId cls;  // of the record: LOBTree, LOBucket, IOBTree, IOBucket
  // kEmbedded, kBucket: the keys. kTree: keys[i] separates refs[i] from refs[i + 1].
  std::vector<std::int64_t> keys;
  // kEmbedded, kBucket: the values. kTree: the children.
  std::vector<Ref> refs;
  // kBucket: the next bucket, if there is one. kTree: the first bucket below. kEmbedded: nothing,
  // but for what BTrees writes in a corner case (docs/formats/btree.md).
  std::optional<Ref> link;

  bool is_leaf() const { return shape == Shape::kEmbedded || shape == Shape::kBucket; }
  // kTree: which child holds `key`.
  std::size_t child_of(std::int64_t key) const;
  // Leaf: where `key` is, or nothing.
  std::optional<std::size_t> find(std::int64_t key) const;
  // Leaf: the place of the first key >= `key`; keys.size() if there is none.
  std::size_t lower_bound(std::int64_t key) const;
};

// Decodes a record of the four classes. Throws Corrupt (without the oid; whoever loaded it knows).
BTreeNode decode_btree_node(const ObjectRecord& record);
// The record of a node, as BTrees and ZODB write it.
Bytes encode_btree_node(const BTreeNode& node, Flavour flavour);

struct LoadedNode {
  Oid oid;
  Tid serial;
  BTreeNode node;
};

// Where nodes come from: a storage at a tid, perhaps with a cache before it.
class NodeSource {
 public:
  virtual ~NodeSource() = default;
  // Throws Corrupt if there is no such object, or it is no node.
  virtual std::shared_ptr<const LoadedNode> node(Oid oid) const = 0;
  // These will be asked for soon: a source with latency loads them in one batch.
  virtual void want(std::span<const Oid> oids) const { static_cast<void>(oids); }
};

// Straight from a storage; `want` loads a batch and keeps it until it is asked for once. One
// thread.
class StorageNodeSource final : public NodeSource {
 public:
  StorageNodeSource(const Storage& storage, Tid at) : storage_(storage), at_(at) {}
  std::shared_ptr<const LoadedNode> node(Oid oid) const override;
  void want(std::span<const Oid> oids) const override;

 private:
  const Storage& storage_;
  Tid at_;
  mutable std::unordered_map<Oid, std::shared_ptr<const LoadedNode>> wanted_;
};

// Makes a node of what a storage gave. Throws Corrupt that names the object.
std::shared_ptr<const LoadedNode> parse_loaded_node(Oid oid, Record record);

inline constexpr std::int64_t kMinKey = std::numeric_limits<std::int64_t>::min();
inline constexpr std::int64_t kMaxKey = std::numeric_limits<std::int64_t>::max();

// The leaf that holds a key or would hold it, and the keys for which this is so: first..last.
struct Leaf {
  std::shared_ptr<const LoadedNode> node;  // kBucket, kEmbedded, or kEmpty
  std::int64_t first = kMinKey;
  std::int64_t last = kMaxKey;
  // Nodes passed on the way: the root first, the leaf not among them.
  std::vector<std::shared_ptr<const LoadedNode>> path;
};

class BTree {
 public:
  static constexpr std::size_t kMaxDepth = 32;

  // The source must outlive the tree. `cls`: kLOBTree or kIOBTree, which all its nodes must be of.
  BTree(const NodeSource& source, Oid root, KnownClass cls)
      : source_(source), root_(root), cls_(cls) {}

  Leaf leaf(std::int64_t key) const;
  std::optional<Ref> find(std::int64_t key) const;
  std::optional<std::int64_t> max_key() const;

  // Keys in first..last (both included), ascending, until `visit` returns false. Children are
  // announced to the source (`want`) before they are asked for.
  using Visit = std::function<bool(std::int64_t key, const Ref& value)>;
  void for_each(std::int64_t first, std::int64_t last, const Visit& visit) const;
  // Leaves that overlap first..last, ascending, until `visit` returns false.
  using VisitLeaf = std::function<bool(const Leaf& leaf)>;
  void for_each_leaf(std::int64_t first, std::int64_t last, const VisitLeaf& visit) const;

 private:
  const NodeSource& source_;
  Oid root_;
  KnownClass cls_;
};

// --- folders: OOBTree with string keys (read only)

struct FolderEntry {
  std::string key;  // text as UTF-8, or the bytes
  Oid oid;
  std::string cls;  // "module.name" of the reference; empty if it does not say
};
// All entries of an OOBTree whose value is a persistent object and whose key is a string, in the
// order of the tree. Throws Corrupt, and Failed above `max_entries`.
std::vector<FolderEntry> list_folder(const Storage& storage, Oid root, Tid at,
                                     std::size_t max_entries = 1u << 20);

}  // namespace zbig
