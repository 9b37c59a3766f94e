// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/btree_editor.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "zodb/error.h"

// After _BTree_set, BTree_grow, BTree_split_root and their helpers of BTrees' BTreeTemplate.c.
// Where that recurses, the way down is kept in a vector, and the way back walks it.

namespace zbig {

using Shape = BTreeNode::Shape;

// The tree with its changes, which BTree reads through it as it reads a stored one.
class BTreeEditor::Work final : public NodeSource {
 public:
  Work(const NodeSource* source, Oid root, KnownClass cls, NewOid new_oid, BTreeLimits limits)
      : source_(source),
        root_(root),
        cls_(cls),
        bucket_cls_(cls == KnownClass::kLOBTree ? KnownClass::kLOBucket : KnownClass::kIOBucket),
        new_oid_(std::move(new_oid)),
        limits_(limits),
        tree_(*this, root, cls) {
    if (!source_) add(root_, BTreeNode(ClassId::of(cls)));
  }

  std::shared_ptr<const LoadedNode> node(Oid oid) const override {
    if (const auto found = edited_.find(oid); found != edited_.end()) return found->second.node;
    auto& seen = seen_[oid];
    if (!seen) seen = source_->node(oid);
    return seen;
  }

  void want(std::span<const Oid> oids) const override {
    std::vector<Oid> unknown;
    for (const Oid oid : oids)
      if (!edited_.contains(oid) && !seen_.contains(oid)) unknown.push_back(oid);
    if (!unknown.empty()) source_->want(unknown);
  }

  const BTree& tree() const { return tree_; }
  bool changed() const { return !edited_.empty(); }

  void set(std::int64_t key, const Ref& value);
  bool erase(std::int64_t key);
  void clear();
  std::vector<Store> stores(Flavour flavour) const;
  std::vector<Check> checks() const;

 private:
  struct Edited {
    std::shared_ptr<LoadedNode> node;
    std::size_t order = 0;  // in which nodes came in here
    bool is_new = false;
  };

  // The node to be changed.
  BTreeNode& change(Oid oid) {
    auto& edited = edited_[oid];
    if (!edited.node) {
      edited.node = std::make_shared<LoadedNode>(*seen_.at(oid));
      edited.order = next_order_++;
      seen_.erase(oid);
    }
    return edited.node->node;
  }
  void add(Oid oid, BTreeNode node) {
    edited_[oid] = {std::make_shared<LoadedNode>(LoadedNode{oid, kNoTid, std::move(node)}),
                    next_order_++, true};
  }
  Ref add_new(KnownClass cls, BTreeNode node) {
    const Oid oid = new_oid_();
    add(oid, std::move(node));
    return ref_to(oid, cls);
  }

  // The way to a leaf.
  struct Step {
    Oid oid;
    std::size_t child;
  };
  std::vector<Step> way_to(const Leaf& leaf, std::int64_t key) const;
  void read_current(const Leaf& leaf);
  void refuse_inner_embedded(const LoadedNode& loaded) const;

  Ref split_bucket(BTreeNode& left);
  Ref split_tree(BTreeNode& left);
  void split_embedded(Oid oid);
  void split_root(Oid oid);
  void insert_child(Oid parent, std::size_t i, std::int64_t key, const Ref& child);
  void grow(const std::vector<Step>& way);

  void unlink_next(Ref child, Oid emptied, const std::optional<Ref>& successor);
  void shrink(const std::vector<Step>& way, std::int64_t key, Oid leaf);

  std::optional<Oid> only_new_bucket() const;

  const NodeSource* source_;  // null: the tree is new
  Oid root_;
  KnownClass cls_;
  KnownClass bucket_cls_;
  NewOid new_oid_;
  BTreeLimits limits_;
  BTree tree_;

  mutable std::unordered_map<Oid, std::shared_ptr<const LoadedNode>> seen_;
  std::unordered_map<Oid, Edited> edited_;
  std::size_t next_order_ = 0;
  std::map<Oid, Tid> read_current_;
};

// --- both ways

std::vector<BTreeEditor::Work::Step> BTreeEditor::Work::way_to(const Leaf& leaf,
                                                               std::int64_t key) const {
  std::vector<Step> way;
  for (const auto& node : leaf.path) way.push_back({node->oid, node->node.child_of(key)});
  return way;
}

void BTreeEditor::Work::read_current(const Leaf& leaf) {
  for (const auto& node : leaf.path)
    if (node->serial != kNoTid) read_current_[node->oid] = node->serial;
}

// BTrees writes such a tree when a node below the root comes down, in the transaction that made it,
// to one new bucket. The chain of buckets cannot go through a bucket that is no object, so there
// is no right way to change it.
void BTreeEditor::Work::refuse_inner_embedded(const LoadedNode& loaded) const {
  if (loaded.node.shape == Shape::kEmbedded && loaded.oid != root_)
    throw Unsupported(describe_object(loaded.oid, loaded.serial) +
                      ": a bucket inside a tree node that is not the root cannot be changed");
}

// --- insert

// Moves the upper half of a bucket into a new one behind it.
Ref BTreeEditor::Work::split_bucket(BTreeNode& left) {
  const auto half = static_cast<std::ptrdiff_t>(left.keys.size() / 2);
  BTreeNode right(ClassId::of(bucket_cls_), Shape::kBucket);
  right.keys.assign(left.keys.begin() + half, left.keys.end());
  right.refs.assign(left.refs.begin() + half, left.refs.end());
  right.link = left.link;
  left.keys.resize(static_cast<std::size_t>(half));
  left.refs.erase(left.refs.begin() + half, left.refs.end());
  const Ref ref = add_new(bucket_cls_, std::move(right));
  left.link = ref;
  return ref;
}

// Moves the upper half of a tree's children into a new tree. The separator at the split is left at
// the end of left.keys, for the caller to take.
Ref BTreeEditor::Work::split_tree(BTreeNode& left) {
  const auto half = static_cast<std::ptrdiff_t>(left.refs.size() / 2);
  BTreeNode right(ClassId::of(cls_), Shape::kTree);
  right.refs.assign(left.refs.begin() + half, left.refs.end());
  right.keys.assign(left.keys.begin() + half, left.keys.end());
  const auto first = node(right.refs.front().oid);
  refuse_inner_embedded(*first);
  right.link = first->node.shape == Shape::kTree ? first->node.link : right.refs.front();
  left.refs.erase(left.refs.begin() + half, left.refs.end());
  left.keys.resize(static_cast<std::size_t>(half));
  return add_new(cls_, std::move(right));
}

// The bucket in a tree's record becomes two of their own.
void BTreeEditor::Work::split_embedded(Oid oid) {
  BTreeNode& tree = change(oid);
  BTreeNode left(ClassId::of(bucket_cls_), Shape::kBucket);
  left.keys = std::exchange(tree.keys, {});
  left.refs = std::exchange(tree.refs, {});
  const Ref right = split_bucket(left);
  const Ref first = add_new(bucket_cls_, std::move(left));
  tree.shape = Shape::kTree;
  tree.keys = {node(right.oid)->node.keys.front()};
  tree.refs = {first, right};
  tree.link = first;
}

// The root keeps its oid: its children go into a new tree, which is split.
void BTreeEditor::Work::split_root(Oid oid) {
  BTreeNode& root = change(oid);
  BTreeNode left = root;
  left.cls = ClassId::of(cls_);
  const Ref right = split_tree(left);
  root.keys = {left.keys.back()};
  left.keys.pop_back();
  root.refs = {add_new(cls_, std::move(left)), right};
}

void BTreeEditor::Work::insert_child(Oid parent, std::size_t i, std::int64_t key,
                                     const Ref& child) {
  BTreeNode& tree = change(parent);
  tree.keys.insert(tree.keys.begin() + static_cast<std::ptrdiff_t>(i), key);
  tree.refs.insert(tree.refs.begin() + static_cast<std::ptrdiff_t>(i) + 1, child);
  if (tree.refs.size() >= 2 * limits_.max_internal) split_root(parent);
}

// Back from a bucket that got a key: splits what is too big.
void BTreeEditor::Work::grow(const std::vector<Step>& way) {
  for (std::size_t level = way.size(); level-- > 0;) {
    const auto parent = node(way[level].oid);
    const Oid child = parent->node.refs[way[level].child].oid;
    const auto loaded = node(child);
    if (loaded->node.shape == Shape::kBucket) {
      if (loaded->node.keys.size() <= limits_.max_leaf) return;
      const Ref right = split_bucket(change(child));
      insert_child(way[level].oid, way[level].child, node(right.oid)->node.keys.front(), right);
    } else {
      if (loaded->node.refs.size() <= limits_.max_internal) return;
      BTreeNode& left = change(child);
      const Ref right = split_tree(left);
      const std::int64_t separator = left.keys.back();
      left.keys.pop_back();
      insert_child(way[level].oid, way[level].child, separator, right);
    }
  }
}

void BTreeEditor::Work::set(std::int64_t key, const Ref& value) {
  const bool small_keys = cls_ == KnownClass::kIOBTree;
  if (key < 0 || (small_keys && key > std::numeric_limits<std::int32_t>::max()))
    throw Invalid("key " + std::to_string(key) + " is out of the range of " +
                  std::string(ClassId::of(cls_).name().name));

  const Leaf leaf = tree_.leaf(key);
  const Oid oid = leaf.node->oid;
  if (const auto place = leaf.node->node.find(key)) {
    if (leaf.node->node.refs[*place] == value) return;
    read_current(leaf);
    change(oid).refs[*place] = value;
    return;
  }

  refuse_inner_embedded(*leaf.node);
  const std::vector<Step> way = way_to(leaf, key);
  read_current(leaf);
  BTreeNode& node = change(oid);
  if (node.shape == Shape::kEmpty) node.shape = Shape::kEmbedded;
  const auto place = static_cast<std::ptrdiff_t>(node.lower_bound(key));
  node.keys.insert(node.keys.begin() + place, key);
  node.refs.insert(node.refs.begin() + place, value);
  if (node.shape == Shape::kBucket)
    grow(way);
  else if (node.keys.size() > limits_.max_leaf)
    split_embedded(oid);
}

// --- delete

// Takes the emptied bucket, which followed the last bucket below `child`, out of the chain.
void BTreeEditor::Work::unlink_next(Ref child, Oid emptied, const std::optional<Ref>& successor) {
  auto last = node(child.oid);
  for (std::size_t depth = 0; last->node.shape == Shape::kTree; ++depth) {
    if (depth >= BTree::kMaxDepth)
      throw Corrupt(describe_object(last->oid, last->serial) + ": the tree is too deep");
    last = node(last->node.refs.back().oid);
  }
  refuse_inner_embedded(*last);
  if (last->node.shape != Shape::kBucket || !last->node.link || last->node.link->oid != emptied)
    throw Corrupt(describe_object(last->oid, last->serial) +
                  ": the next bucket is not the next one in the tree, object 0x" + emptied.hex());
  change(last->oid).link = successor;
}

// Back from bucket `leaf`, which lost `key`.
void BTreeEditor::Work::shrink(const std::vector<Step>& way, std::int64_t key, Oid leaf) {
  const std::optional<Ref> successor = node(leaf)->node.link;
  // An emptied bucket that was the first of the tree below: whoever has a tree to the left of it
  // unlinks it; whoever begins with it begins with its successor now.
  bool first_is_gone = false;

  for (std::size_t level = way.size(); level-- > 0;) {
    const auto [oid, i] = way[level];
    const auto parent = node(oid);
    const Ref child_ref = parent->node.refs[i];
    const auto child = node(child_ref.oid);
    const bool child_is_bucket = child->node.shape == Shape::kBucket;
    const bool child_is_empty =
        child_is_bucket ? child->node.keys.empty() : child->node.shape == Shape::kEmpty;

    if (i > 0 && !child_is_empty && parent->node.keys[i - 1] == key) {
      const auto first = child_is_bucket ? child : node(child->node.link->oid);
      if (first->node.keys.empty() || !first->node.is_leaf())
        throw Corrupt(describe_object(child->oid, child->serial) + ": its first bucket is none");
      change(oid).keys[i - 1] = first->node.keys.front();
    }
    if (first_is_gone || (child_is_bucket && child_is_empty)) {
      first_is_gone = i == 0;
      if (i > 0)
        unlink_next(parent->node.refs[i - 1], leaf, successor);
      else
        change(oid).link = successor;
    }
    if (!child_is_empty) continue;

    BTreeNode& tree = change(oid);
    tree.refs.erase(tree.refs.begin() + static_cast<std::ptrdiff_t>(i));
    if (!tree.keys.empty())
      tree.keys.erase(tree.keys.begin() + static_cast<std::ptrdiff_t>(i > 0 ? i - 1 : 0));
    if (tree.refs.empty()) {
      tree.shape = Shape::kEmpty;
      tree.link.reset();
    }
    if (edited_.at(child_ref.oid).is_new) edited_.erase(child_ref.oid);  // E3
  }
}

bool BTreeEditor::Work::erase(std::int64_t key) {
  const Leaf leaf = tree_.leaf(key);
  const auto place = leaf.node->node.find(key);
  if (!place) return false;
  if (leaf.node->node.keys.size() == 1) refuse_inner_embedded(*leaf.node);

  const std::vector<Step> way = way_to(leaf, key);
  read_current(leaf);
  const Oid oid = leaf.node->oid;
  BTreeNode& node = change(oid);
  node.keys.erase(node.keys.begin() + static_cast<std::ptrdiff_t>(*place));
  node.refs.erase(node.refs.begin() + static_cast<std::ptrdiff_t>(*place));
  if (node.shape == Shape::kEmbedded && node.keys.empty()) node.shape = Shape::kEmpty;
  shrink(way, key, oid);
  return true;
}

void BTreeEditor::Work::clear() {
  if (node(root_)->node.shape == Shape::kEmpty) return;
  BTreeNode& root = change(root_);
  root = BTreeNode(root.cls);
  std::erase_if(edited_, [&](const auto& entry) {  // E3
    return entry.second.is_new && entry.first != root_;
  });
}

// --- the end

// Of a tree that has come down to one bucket, which has never been stored: BTrees writes it into
// the tree's record.
std::optional<Oid> BTreeEditor::Work::only_new_bucket() const {
  const auto root = edited_.find(root_);
  if (root == edited_.end()) return std::nullopt;
  const BTreeNode& tree = root->second.node->node;
  if (tree.shape != Shape::kTree || tree.refs.size() != 1) return std::nullopt;
  const auto child = edited_.find(tree.refs.front().oid);
  if (child == edited_.end() || !child->second.is_new ||
      child->second.node->node.shape != Shape::kBucket)
    return std::nullopt;
  return child->first;
}

std::vector<BTreeEditor::Store> BTreeEditor::Work::stores(Flavour flavour) const {
  std::vector<const Edited*> order;
  const auto embedded = only_new_bucket();
  for (const auto& [oid, edited] : edited_)
    if (oid != embedded) order.push_back(&edited);
  std::ranges::sort(order, {},
                    [](const Edited* edited) { return std::pair(edited->is_new, edited->order); });

  std::vector<Store> stores;
  stores.reserve(order.size());
  for (const Edited* edited : order) {
    const LoadedNode& loaded = *edited->node;
    if (embedded && loaded.oid == root_) {
      BTreeNode root = node(*embedded)->node;
      root.cls = loaded.node.cls;
      root.shape = Shape::kEmbedded;
      stores.push_back({loaded.oid, loaded.serial, encode_btree_node(root, flavour)});
    } else {
      stores.push_back({loaded.oid, loaded.serial, encode_btree_node(loaded.node, flavour)});
    }
  }
  return stores;
}

std::vector<BTreeEditor::Check> BTreeEditor::Work::checks() const {
  std::vector<Check> checks;
  for (const auto& [oid, serial] : read_current_)
    if (!edited_.contains(oid)) checks.push_back({oid, serial});
  return checks;
}

// --- the public face

BTreeEditor::BTreeEditor(std::unique_ptr<Work> work) : work_(std::move(work)) {}
BTreeEditor::BTreeEditor(const NodeSource& source, Oid root, KnownClass cls, NewOid new_oid,
                         BTreeLimits limits)
    : work_(std::make_unique<Work>(&source, root, cls, std::move(new_oid), limits)) {}
BTreeEditor BTreeEditor::create(Oid root, KnownClass cls, NewOid new_oid, BTreeLimits limits) {
  return BTreeEditor(std::make_unique<Work>(nullptr, root, cls, std::move(new_oid), limits));
}
BTreeEditor::~BTreeEditor() = default;
BTreeEditor::BTreeEditor(BTreeEditor&&) noexcept = default;

std::optional<Ref> BTreeEditor::get(std::int64_t key) const { return work_->tree().find(key); }
std::optional<std::int64_t> BTreeEditor::max_key() const { return work_->tree().max_key(); }
void BTreeEditor::for_each(std::int64_t first, std::int64_t last, const BTree::Visit& visit) const {
  work_->tree().for_each(first, last, visit);
}
void BTreeEditor::set(std::int64_t key, const Ref& value) { work_->set(key, value); }
bool BTreeEditor::erase(std::int64_t key) { return work_->erase(key); }
void BTreeEditor::clear() { work_->clear(); }
bool BTreeEditor::changed() const { return work_->changed(); }
std::vector<BTreeEditor::Store> BTreeEditor::stores(Flavour flavour) const {
  return work_->stores(flavour);
}
std::vector<BTreeEditor::Check> BTreeEditor::checks() const { return work_->checks(); }

}  // namespace zbig
