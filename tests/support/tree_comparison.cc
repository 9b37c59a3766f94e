// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/tree_comparison.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace zbig::test {

bool is_btree_node(const ObjectRecord& record) {
  return record.is(KnownClass::kLOBTree) || record.is(KnownClass::kLOBucket) ||
         record.is(KnownClass::kIOBTree) || record.is(KnownClass::kIOBucket);
}

TreeComparison::TreeComparison(const Storage& storage, Tid before, Tid after,
                               const BTreeEditor& editor)
    : storage_(storage), before_(before), after_(after) {
  for (auto& store : editor.stores(Flavour::kPython3)) {
    ours_.emplace(store.oid, std::move(store.record));
    if (store.base != kNoTid) stored_.push_back(store.oid);
  }
  std::sort(stored_.begin(), stored_.end());
}

void TreeComparison::compare(Oid root) {
  match(root, root);
  for (const auto& [ours, theirs] : pairs_) same_record(ours, theirs);
}

std::vector<Oid> TreeComparison::stored_by_original() const {
  std::vector<Oid> oids;
  for (const Oid oid : storage_.changed_oids(Tid{after_.value - 1}, after_)) {
    auto old = storage_.load(oid, before_);
    if (old && is_btree_node(ObjectRecord::parse(std::move(old->data)))) oids.push_back(oid);
  }
  return oids;
}

BTreeNode TreeComparison::ours(Oid oid) const {
  const auto found = ours_.find(oid);
  const Bytes record = found != ours_.end() ? found->second : storage_.load(oid, before_)->data;
  return decode_btree_node(ObjectRecord::parse(record));
}

BTreeNode TreeComparison::theirs(Oid oid) const {
  return decode_btree_node(ObjectRecord::parse(storage_.load(oid, after_)->data));
}

void TreeComparison::match(Oid our_oid, Oid their_oid) {
  pairs_.emplace(our_oid, their_oid);
  const BTreeNode a = ours(our_oid), b = theirs(their_oid);
  ASSERT_EQ(a.shape, b.shape) << describe_object(their_oid, after_);
  ASSERT_EQ(a.keys, b.keys) << describe_object(their_oid, after_);
  if (a.shape == BTreeNode::Shape::kTree)
    for (std::size_t i = 0; i < a.refs.size(); ++i) match(a.refs[i].oid, b.refs[i].oid);
}

void TreeComparison::same_record(Oid our_oid, Oid their_oid) const {
  BTreeNode node = ours(our_oid);
  const auto renumber = [&](Ref& ref) {
    if (const auto pair = pairs_.find(ref.oid); pair != pairs_.end()) ref.oid = pair->second;
  };
  for (Ref& ref : node.refs) renumber(ref);
  if (node.link) renumber(*node.link);
  const Bytes record = storage_.load(their_oid, after_)->data;
  EXPECT_EQ(as_text(encode_btree_node(node, detect_flavour(record))), as_text(record))
      << describe_object(their_oid, after_);
}

}  // namespace zbig::test
