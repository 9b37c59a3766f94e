// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/bucket_scan.h"

#include <random>

#include <gtest/gtest.h>

#include "tests/support/format_page.h"
#include "zodb/error.h"

namespace zbig {
namespace {

std::optional<BTreeNode> decoded(const Bytes& record) {
  try {
    return decode_btree_node(ObjectRecord::parse(record));
  } catch (const Corrupt&) {
    return std::nullopt;
  }
}

// S1
void expect_same_or_nothing(const Bytes& record, const std::string& what) {
  const auto scanned = scan_bucket(record);
  if (!scanned) return;
  const auto node = decoded(record);
  ASSERT_TRUE(node) << what << ": scanned, but corrupt";
  EXPECT_EQ(scanned->shape, node->shape) << what;
  EXPECT_EQ(scanned->cls, node->cls) << what;
  EXPECT_EQ(scanned->keys, node->keys) << what;
  EXPECT_EQ(scanned->refs, node->refs) << what;
  EXPECT_EQ(scanned->link, node->link) << what;
}

// A bucket as random as `random` makes it, with 2 to 70 pairs.
BTreeNode random_bucket(std::mt19937_64& random) {
  const bool chunks = random() % 2 == 0;
  const KnownClass cls = chunks ? KnownClass::kIOBucket : KnownClass::kLOBucket;
  BTreeNode node(ClassId::of(cls), BTreeNode::Shape::kBucket);
  std::int64_t key = random() % 3 == 0 ? -70000 : 0;
  for (std::size_t i = 2 + random() % 69; i > 0; --i) {
    key += 1 + static_cast<std::int64_t>(random() % (random() % 2 == 0 ? 4096 : 1u << 20));
    node.keys.push_back(key);
    const KnownClass value = chunks              ? KnownClass::kZData
                             : random() % 2 == 0 ? KnownClass::kZBlk0
                                                 : KnownClass::kZBlk1;
    node.refs.push_back(ref_to(Oid{random()}, value));
  }
  if (random() % 2 == 0) node.link = ref_to(Oid{random()}, cls);
  return node;
}

TEST(BucketScan, UsualBuckets_AreScanned) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 300; ++i) {
    const BTreeNode node = random_bucket(random);
    for (const Flavour flavour : {Flavour::kPython3, Flavour::kPython2Protocol3}) {
      const Bytes record = encode_btree_node(node, flavour);
      EXPECT_TRUE(scan_bucket(record));
      expect_same_or_nothing(record, "bucket " + std::to_string(i));
    }
  }
}

TEST(BucketScan, AnyByteChangedLostOrAdded_IsSeenAsTheDecoderSeesIt) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 8; ++i) {
    const Flavour flavour = i % 2 == 0 ? Flavour::kPython3 : Flavour::kPython2Protocol3;
    const Bytes record = encode_btree_node(random_bucket(random), flavour);
    for (std::size_t at = 0; at < record.size(); ++at) {
      const std::string what = "bucket " + std::to_string(i) + ", byte " + std::to_string(at);
      for (const unsigned flip : {1u, 2u, 3u, 7u, 0x80u, 0xffu, unsigned(random() % 255 + 1)}) {
        Bytes changed = record;
        changed[at] ^= static_cast<std::byte>(flip);
        expect_same_or_nothing(changed, what);
      }
      Bytes shorter = record;
      shorter.erase(shorter.begin() + static_cast<std::ptrdiff_t>(at));
      expect_same_or_nothing(shorter, what + " lost");
      expect_same_or_nothing({record.begin(), record.begin() + static_cast<std::ptrdiff_t>(at)},
                             what + " and the rest lost");
      Bytes longer = record;
      longer.insert(longer.begin() + static_cast<std::ptrdiff_t>(at), record[random() % (at + 1)]);
      expect_same_or_nothing(longer, what + " added");
    }
  }
}

TEST(BucketScan, ExamplesOfThePage_AreTheSame) {
  std::size_t scanned = 0;
  for (const auto& [name, bytes] : test::hex_examples("btree.md")) {
    expect_same_or_nothing(bytes, name);
    if (scan_bucket(bytes)) ++scanned;
  }
  EXPECT_GE(scanned, 2u);
}

}  // namespace
}  // namespace zbig
