// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/regular_bucket.h"

#include <limits>

#include "zodb/error.h"

namespace zbig {

std::optional<RegularBucket> RegularBucket::from(const LoadedNode& loaded) {
  const BTreeNode& node = loaded.node;
  if (node.shape != BTreeNode::Shape::kBucket || node.keys.size() < 2 ||
      node.keys.size() > std::numeric_limits<std::uint32_t>::max()) {
    return std::nullopt;
  }
  RegularBucket bucket;
  bucket.serial_ = loaded.serial;
  bucket.cls_ = node.cls;
  bucket.first_key_ = node.keys[0];
  // Keys ascend (T1 of zodb/btree.h); their difference may have no room in 64 bits.
  const std::uint64_t step =
      static_cast<std::uint64_t>(node.keys[1]) - static_cast<std::uint64_t>(node.keys[0]);
  if (step > std::numeric_limits<std::int32_t>::max()) return std::nullopt;
  bucket.step_ = static_cast<std::int64_t>(step);
  bucket.first_ = node.refs[0];
  bucket.next_ = node.link;
  bucket.count_ = static_cast<std::uint32_t>(node.keys.size());
  bucket.jump_ = bucket.count_;
  Ref expected = bucket.first_;
  for (std::uint32_t i = 0; i < bucket.count_; ++i, ++expected.oid.value) {
    if (node.refs[i].oid != expected.oid && bucket.jump_ == bucket.count_) {
      bucket.jump_ = i;
      bucket.after_jump_ = expected.oid = node.refs[i].oid;
    }
    if (node.refs[i] != expected) return std::nullopt;
    if (i > 0 &&
        static_cast<std::uint64_t>(node.keys[i]) - static_cast<std::uint64_t>(node.keys[i - 1]) !=
            step) {
      return std::nullopt;
    }
  }
  return bucket;
}

std::shared_ptr<const LoadedNode> RegularBucket::node(Oid oid) const {
  invariant(cls_.has_value(), "a bucket that was made from a node");
  auto loaded = std::make_shared<LoadedNode>(
      LoadedNode{oid, serial_, BTreeNode(*cls_, BTreeNode::Shape::kBucket)});
  BTreeNode& node = loaded->node;
  node.keys.resize(count_);
  node.refs.assign(count_, first_);
  for (std::uint32_t i = 0; i < count_; ++i) {
    node.keys[i] = first_key_ + i * step_;
    node.refs[i].oid.value = i < jump_ ? first_.oid.value + i : after_jump_.value + (i - jump_);
  }
  node.link = next_;
  return loaded;
}

}  // namespace zbig
