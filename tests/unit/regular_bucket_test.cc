// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/regular_bucket.h"

#include <gtest/gtest.h>

namespace zbig {
namespace {

LoadedNode bucket(const std::vector<std::pair<std::int64_t, std::uint64_t>>& pairs) {
  LoadedNode loaded{Oid{7}, Tid{9},
                    BTreeNode(ClassId::of(KnownClass::kIOBucket), BTreeNode::Shape::kBucket)};
  for (const auto& [key, oid] : pairs) {
    loaded.node.keys.push_back(key);
    loaded.node.refs.push_back(ref_to(Oid{oid}, KnownClass::kZData));
  }
  loaded.node.link = ref_to(Oid{99}, KnownClass::kIOBucket);
  return loaded;
}

void expect_same(const LoadedNode& loaded) {
  const auto packed = RegularBucket::from(loaded);
  ASSERT_TRUE(packed);
  const auto node = packed->node(loaded.oid);
  EXPECT_EQ(node->oid, loaded.oid);
  EXPECT_EQ(node->serial, loaded.serial);
  EXPECT_EQ(node->node.shape, loaded.node.shape);
  EXPECT_EQ(node->node.cls, loaded.node.cls);
  EXPECT_EQ(node->node.keys, loaded.node.keys);
  EXPECT_EQ(node->node.refs, loaded.node.refs);
  EXPECT_EQ(node->node.link, loaded.node.link);
}

TEST(RegularBucket, OneStepAndAtMostOneJump_IsTheSameNodeAgain) {
  expect_same(bucket({{-4096, 20}, {0, 21}, {4096, 22}, {8192, 23}}));
  expect_same(bucket({{0, 20}, {4096, 31}, {8192, 32}, {12288, 33}}));
  expect_same(bucket({{0, 20}, {1, 21}, {2, 22}, {3, 5}}));
  LoadedNode last = bucket({{0, 1}, {4096, 2}});
  last.node.link.reset();
  expect_same(last);
}

TEST(RegularBucket, OtherNodes_AreLeftAsTheyAre) {
  EXPECT_FALSE(RegularBucket::from(bucket({})));
  EXPECT_FALSE(RegularBucket::from(bucket({{0, 1}})));
  EXPECT_FALSE(RegularBucket::from(bucket({{0, 1}, {4096, 2}, {8193, 3}})));  // key
  EXPECT_FALSE(RegularBucket::from(bucket({{0, 1}, {4096, 3}, {8192, 5}})));  // two jumps
  EXPECT_FALSE(RegularBucket::from(bucket({{kMinKey, 1}, {kMaxKey, 2}})));    // a long step
  LoadedNode mixed = bucket({{0, 1}, {4096, 2}});
  mixed.node.refs[1].cls = ClassId::of(KnownClass::kZBlk0);
  EXPECT_FALSE(RegularBucket::from(mixed));
  LoadedNode embedded = bucket({{0, 1}, {4096, 2}});
  embedded.node.shape = BTreeNode::Shape::kEmbedded;
  EXPECT_FALSE(RegularBucket::from(embedded));
}

}  // namespace
}  // namespace zbig
