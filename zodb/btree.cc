// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/btree.h"

#include <algorithm>

#include "zodb/error.h"

namespace zbig {

std::size_t BTreeNode::child_of(std::int64_t key) const {
  return static_cast<std::size_t>(std::upper_bound(keys.begin(), keys.end(), key) - keys.begin());
}

std::size_t BTreeNode::lower_bound(std::int64_t key) const {
  return static_cast<std::size_t>(std::lower_bound(keys.begin(), keys.end(), key) - keys.begin());
}

std::optional<std::size_t> BTreeNode::find(std::int64_t key) const {
  const std::size_t place = lower_bound(key);
  if (place == keys.size() || keys[place] != key) return std::nullopt;
  return place;
}

std::shared_ptr<const LoadedNode> StorageNodeSource::node(Oid oid) const {
  if (auto wanted = wanted_.extract(oid)) return std::move(wanted.mapped());
  auto record = storage_.load(oid, at_);
  if (!record) throw Corrupt(describe_object(oid, at_) + ": a node of a BTree does not exist");
  return parse_loaded_node(oid, std::move(*record));
}

void StorageNodeSource::want(std::span<const Oid> oids) const {
  std::vector<std::optional<Record>> records(oids.size());
  storage_.load(oids, at_, Storage::kMaxLoad, records);
  // Walks that were given up leave nodes behind; those under way have a batch for each level.
  constexpr std::size_t kMaxKept = 4096;
  if (wanted_.size() > kMaxKept) wanted_.clear();
  for (std::size_t i = 0; i < oids.size(); ++i)
    if (records[i]) wanted_[oids[i]] = parse_loaded_node(oids[i], std::move(*records[i]));
}

namespace {

// Goes down from the root, and checks that what it finds is a tree.
class Descent {
 public:
  Descent(const NodeSource& source, KnownClass cls) : source_(source), tree_(cls) {
    invariant(cls == KnownClass::kLOBTree || cls == KnownClass::kIOBTree,
              "a BTree is an LOBTree or an IOBTree");
    bucket_ = cls == KnownClass::kLOBTree ? KnownClass::kLOBucket : KnownClass::kIOBucket;
  }

  std::shared_ptr<const LoadedNode> root(Oid oid) const {
    auto loaded = source_.node(oid);
    check(*loaded, kMinKey, kMaxKey);
    if (loaded->node.cls.known() != tree_) corrupt(*loaded, "a bucket is where a tree should be");
    return loaded;
  }

  // Child `i` of `parent`, which the keys first..last of the parent's own range reach.
  std::shared_ptr<const LoadedNode> child(const LoadedNode& parent, std::size_t i,
                                          std::int64_t first, std::int64_t last,
                                          std::size_t depth) const {
    if (depth >= BTree::kMaxDepth) corrupt(parent, "the tree is too deep");
    const Ref& ref = parent.node.refs[i];
    auto loaded = source_.node(ref.oid);
    if (ref.cls && !ref.cls->same_class(loaded->node.cls))
      corrupt(*loaded, "its parent says that it is a " + ref.cls->name().str() + ", but it is a " +
                           loaded->node.cls.name().str());
    if (loaded->node.keys.empty() && loaded->node.refs.empty())
      corrupt(*loaded, "an empty node is linked into a tree");
    check(*loaded, first, last);
    return loaded;
  }

 private:
  [[noreturn]] static void corrupt(const LoadedNode& loaded, const std::string& what) {
    throw Corrupt(describe_object(loaded.oid, loaded.serial) + ": " + what);
  }

  void check(const LoadedNode& loaded, std::int64_t first, std::int64_t last) const {
    const BTreeNode& node = loaded.node;
    if (node.cls.known() != tree_ && node.cls.known() != bucket_)
      corrupt(loaded, "a " + node.cls.name().str() + " is inside a " +
                          std::string(ClassId::of(tree_).name().name));
    if (node.keys.empty()) return;
    // T1. A separator is above the first key, so that the child before it has room.
    const bool low = node.is_leaf() ? node.keys.front() < first : node.keys.front() <= first;
    if (low || node.keys.back() > last)
      corrupt(loaded, "its keys " + std::to_string(node.keys.front()) + " to " +
                          std::to_string(node.keys.back()) + " are not in the range " +
                          std::to_string(first) + " to " + std::to_string(last) +
                          " that its parents give it");
  }

  const NodeSource& source_;
  KnownClass tree_;
  KnownClass bucket_;
};

// Child `i` of a node that reaches first..last reaches low..high of it.
std::int64_t low_of(const BTreeNode& node, std::size_t i, std::int64_t first) {
  return i == 0 ? first : node.keys[i - 1];
}
std::int64_t high_of(const BTreeNode& node, std::size_t i, std::int64_t last) {
  return i == node.keys.size() ? last : node.keys[i] - 1;
}

}  // namespace

Leaf BTree::leaf(std::int64_t key) const {
  const Descent descent(source_, cls_);
  Leaf leaf;
  leaf.node = descent.root(root_);
  while (leaf.node->node.shape == BTreeNode::Shape::kTree) {
    const BTreeNode& node = leaf.node->node;
    const std::size_t i = node.child_of(key);
    leaf.first = low_of(node, i, leaf.first);
    leaf.last = high_of(node, i, leaf.last);
    auto child = descent.child(*leaf.node, i, leaf.first, leaf.last, leaf.path.size() + 1);
    leaf.path.push_back(std::exchange(leaf.node, std::move(child)));
  }
  return leaf;
}

std::optional<Ref> BTree::find(std::int64_t key) const {
  const Leaf found = leaf(key);
  const auto place = found.node->node.find(key);
  if (!place) return std::nullopt;
  return found.node->node.refs[*place];
}

std::optional<std::int64_t> BTree::max_key() const {
  const Leaf last = leaf(kMaxKey);
  if (last.node->node.keys.empty()) return std::nullopt;
  return last.node->node.keys.back();
}

void BTree::for_each_leaf(std::int64_t first, std::int64_t last, const VisitLeaf& visit) const {
  if (first > last) return;
  const Descent descent(source_, cls_);
  // The nodes on the way to where the walk stands, each with its range and the children still to
  // visit.
  struct Level {
    std::shared_ptr<const LoadedNode> node;
    std::int64_t first, last;
    std::size_t next, end, wanted;
  };
  std::vector<Level> levels;

  const auto enter = [&](std::shared_ptr<const LoadedNode> node, std::int64_t low,
                         std::int64_t high) {
    if (node->node.shape == BTreeNode::Shape::kTree) {
      const std::size_t begin = node->node.child_of(first);
      const std::size_t end = node->node.child_of(last) + 1;
      levels.push_back({std::move(node), low, high, begin, end, begin});
      return true;
    }
    Leaf leaf{std::move(node), low, high, {}};
    for (const Level& level : levels) leaf.path.push_back(level.node);
    return visit(leaf);
  };

  if (!enter(descent.root(root_), kMinKey, kMaxKey)) return;
  while (!levels.empty()) {
    Level& level = levels.back();
    if (level.next == level.end) {
      levels.pop_back();
      continue;
    }
    const BTreeNode& node = level.node->node;
    const std::size_t i = level.next++;
    if (i == level.wanted && level.end - i > 1) {
      constexpr std::size_t kBatch = 64;
      std::vector<Oid> oids;
      for (; level.wanted < level.end && oids.size() < kBatch; ++level.wanted)
        oids.push_back(node.refs[level.wanted].oid);
      source_.want(oids);
    }
    const std::int64_t low = low_of(node, i, level.first);
    const std::int64_t high = high_of(node, i, level.last);
    if (!enter(descent.child(*level.node, i, low, high, levels.size()), low, high)) return;
  }
}

void BTree::for_each(std::int64_t first, std::int64_t last, const Visit& visit) const {
  for_each_leaf(first, last, [&](const Leaf& leaf) {
    const BTreeNode& node = leaf.node->node;
    for (std::size_t i = node.lower_bound(first); i < node.keys.size() && node.keys[i] <= last; ++i)
      if (!visit(node.keys[i], node.refs[i])) return false;
    return true;
  });
}

}  // namespace zbig
