// SPDX-License-Identifier: BSD-3-Clause

#include "bigfile/tree_check.h"

#include "zodb/error.h"

namespace zbig {

void TreeCheck::defect(Oid oid, const std::string& what) {
  on_defect_(describe_object(oid, at_) + ": " + what);
}

void TreeCheck::walk(Oid root, const OnValue& on_value) {
  previous_.reset();
  expected_.reset();
  chain_known_ = true;
  node(root, {}, 0, on_value);
  if (chain_known_ && expected_) {
    defect(*previous_, "the last bucket names a next one, " + expected_->brief());
  }
}

std::optional<Oid> TreeCheck::node(Oid oid, Range range, std::size_t depth,
                                   const OnValue& on_value) {
  const auto unknown = [&]() -> std::optional<Oid> {
    chain_known_ = false;  // what comes after, and what this node would have named, is unknown
    return std::nullopt;
  };
  if (depth >= BTree::kMaxDepth) {
    defect(oid, "the tree is too deep");
    return unknown();
  }
  std::shared_ptr<const LoadedNode> loaded;
  try {
    loaded = StorageNodeSource(storage_, at_).node(oid);
  } catch (const Corrupt& error) {
    on_defect_(error.what());
    return unknown();
  }
  const BTreeNode& content = loaded->node;
  const bool is_bucket = content.shape == BTreeNode::Shape::kBucket;
  const KnownClass bucket =
      cls_ == KnownClass::kLOBTree ? KnownClass::kLOBucket : KnownClass::kIOBucket;
  const bool right_class = content.cls.known() == (is_bucket ? bucket : cls_);
  if (!right_class || (is_bucket && depth == 0)) {
    defect(oid, "a " + content.cls.name().str() + " stands in its place");
    return unknown();
  }
  if (depth > 0 && content.refs.empty()) defect(oid, "empty, and not taken out of the tree");
  if (!keys_in_order(*loaded, range)) return unknown();
  if (content.shape == BTreeNode::Shape::kTree) return children(*loaded, range, depth, on_value);
  if (is_bucket) chain(*loaded);
  for (std::size_t i = 0; i < content.keys.size(); ++i) on_value(content.keys[i], content.refs[i]);
  return is_bucket ? std::optional(oid) : std::nullopt;
}

bool TreeCheck::keys_in_order(const LoadedNode& node, Range range) {
  const auto& keys = node.node.keys;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (i > 0 && keys[i] <= keys[i - 1]) {
      defect(node.oid,
             "key " + std::to_string(keys[i]) + " follows " + std::to_string(keys[i - 1]));
      return false;
    }
    if (keys[i] < range.first || keys[i] > range.last) {
      defect(node.oid, "key " + std::to_string(keys[i]) + " is outside of what its parents say: " +
                           std::to_string(range.first) + " to " + std::to_string(range.last));
      return false;
    }
  }
  return true;
}

std::optional<Oid> TreeCheck::children(const LoadedNode& tree, Range range, std::size_t depth,
                                       const OnValue& on_value) {
  const BTreeNode& content = tree.node;
  std::optional<Oid> first;
  for (std::size_t i = 0; i < content.refs.size(); ++i) {
    Range part = range;
    if (i > 0) part.first = content.keys[i - 1];
    if (i < content.keys.size()) part.last = content.keys[i] - 1;
    const auto bucket = node(content.refs[i].oid, part, depth + 1, on_value);
    if (i == 0) first = bucket;
  }
  if (first && (!content.link || content.link->oid != *first)) {
    defect(tree.oid, "the first bucket below is " + first->brief() + ", and it names " +
                         (content.link ? content.link->oid.brief() : std::string("none")));
  }
  return first;
}

void TreeCheck::chain(const LoadedNode& bucket) {
  if (chain_known_ && previous_ && expected_ != bucket.oid) {
    defect(*previous_, "the next bucket is " + bucket.oid.brief() + ", and it names " +
                           (expected_ ? expected_->brief() : std::string("none")));
  }
  previous_ = bucket.oid;
  expected_.reset();
  if (bucket.node.link) expected_ = bucket.node.link->oid;
  chain_known_ = true;
}

}  // namespace zbig
