// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/btree_editor.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <set>

#include <gtest/gtest.h>

#include "bigfile/tree_check.h"
#include "tests/support/memory_storage.h"
#include "zodb/error.h"

namespace zbig {
namespace {

using test::MemoryStorage;
using Shape = BTreeNode::Shape;

Ref block(std::int64_t key) {
  return ref_to(Oid{0x100000000 + static_cast<std::uint64_t>(key)}, KnownClass::kZBlk0);
}

// One tree, root 1, in a storage.
class Lab {
 public:
  explicit Lab(KnownClass cls = KnownClass::kLOBTree, BTreeLimits limits = {})
      : cls_(cls), limits_(limits) {
    auto editor = BTreeEditor::create(Oid{1}, cls_, new_oid_, limits_);
    commit(editor);
  }

  BTreeEditor edit() {
    source_ = std::make_unique<StorageNodeSource>(storage_, storage_.last_tid());
    return BTreeEditor(*source_, Oid{1}, cls_, new_oid_, limits_);
  }
  // Stores what the editor says. Every base must be the current revision.
  void commit(const BTreeEditor& editor) {
    const auto transaction = storage_.begin({});
    stored_.clear();
    checked_.clear();
    for (const auto& store : editor.stores(Flavour::kPython3)) {
      transaction->store(store.oid, store.base, store.record);
      stored_.insert(store.oid.value);
    }
    for (const auto& check : editor.checks()) {
      transaction->check_current(check.oid, check.serial);
      checked_.insert(check.oid.value);
    }
    transaction->vote();
    transaction->finish();
  }
  template <typename Edit>
  void change(Edit edit_it) {
    auto editor = edit();
    edit_it(editor);
    commit(editor);
  }
  void insert(std::int64_t first, std::int64_t end) {
    change([&](BTreeEditor& editor) {
      for (std::int64_t key = first; key < end; ++key) editor.set(key, block(key));
    });
  }
  void erase(std::vector<std::int64_t> keys) {
    change([&](BTreeEditor& editor) {
      for (const auto key : keys) EXPECT_TRUE(editor.erase(key)) << key;
    });
  }

  BTreeNode node(std::uint64_t oid) {
    return StorageNodeSource(storage_, storage_.last_tid()).node(Oid{oid})->node;
  }
  std::uint64_t child(std::uint64_t oid, std::size_t i) { return node(oid).refs[i].oid.value; }
  std::size_t record_size(std::uint64_t oid) {
    return storage_.load(Oid{oid}, storage_.last_tid())->data.size();
  }
  // Numbers of keys of the leaves, or of children of the root's children, as "30 31".
  std::string sizes() {
    const BTreeNode root = node(1);
    std::string sizes;
    for (const Ref& ref : root.refs) {
      const BTreeNode child_node = node(ref.oid.value);
      if (!sizes.empty()) sizes += ' ';
      sizes += std::to_string(child_node.refs.size());
    }
    return sizes;
  }
  std::map<std::int64_t, Ref> content() {
    std::map<std::int64_t, Ref> content;
    TreeCheck check(storage_, storage_.last_tid(), cls_,
                    [](const std::string& sentence) { ADD_FAILURE() << sentence; });
    check.walk(Oid{1}, [&](std::int64_t key, const Ref& ref) { content.emplace(key, ref); });
    const StorageNodeSource source(storage_, storage_.last_tid());
    std::map<std::int64_t, Ref> iterated;
    BTree(source, Oid{1}, cls_).for_each(kMinKey, kMaxKey, [&](std::int64_t key, const Ref& ref) {
      iterated.emplace(key, ref);
      return true;
    });
    EXPECT_EQ(iterated, content);
    return content;
  }

  MemoryStorage& storage() { return storage_; }
  std::set<std::uint64_t> stored_, checked_;

 private:
  MemoryStorage storage_;
  KnownClass cls_;
  BTreeLimits limits_;
  std::uint64_t last_oid_ = 1;
  BTreeEditor::NewOid new_oid_ = [this] { return Oid{++last_oid_}; };
  std::unique_ptr<StorageNodeSource> source_;
};

std::vector<std::int64_t> range(std::int64_t first, std::int64_t end) {
  std::vector<std::int64_t> keys(static_cast<std::size_t>(end - first));
  std::iota(keys.begin(), keys.end(), first);
  return keys;
}

using Oids = std::set<std::uint64_t>;

// --- growing

TEST(BTreeEditor, SixtyKeys_AreInTheRecordAndOneMoreMakesTwoBuckets) {
  Lab lab;
  EXPECT_EQ(lab.record_size(1), 33u);
  lab.insert(0, 60);
  EXPECT_EQ(lab.node(1).shape, Shape::kEmbedded);
  lab.insert(60, 61);
  EXPECT_EQ(lab.sizes(), "30 31");
  EXPECT_EQ(lab.record_size(1), 109u);
  EXPECT_EQ(lab.node(1).keys, std::vector<std::int64_t>{30});
  EXPECT_EQ(lab.stored_.size(), 3u);
  lab.insert(61, 91);
  EXPECT_EQ(lab.sizes(), "30 30 31");
  EXPECT_EQ(lab.content().size(), 91u);
}

TEST(BTreeEditor, AscendingKeys_SplitTheRootAt30001) {
  Lab lab;
  lab.insert(0, 30000);
  EXPECT_EQ(lab.node(1).refs.size(), 999u);
  lab.insert(30000, 30001);
  EXPECT_EQ(lab.node(1).refs.size(), 2u);
  EXPECT_EQ(lab.sizes(), "500 500");
  // What was there is stored again only where it changed: the root, the last bucket; and new are
  // a bucket and two trees.
  EXPECT_EQ(lab.stored_.size(), 5u);
  lab.insert(30001, 31000);
  EXPECT_EQ(lab.sizes(), "500 250 283");
  EXPECT_EQ(lab.content().size(), 31000u);
}

TEST(BTreeEditor, FullBlockOfChunks_HasTheOriginalsShape) {
  Lab lab(KnownClass::kIOBTree);
  lab.change([](BTreeEditor& editor) {
    for (std::int64_t i = 0; i < 512; ++i)
      editor.set(i * 4096, ref_to(Oid{1000 + static_cast<std::uint64_t>(i)}, KnownClass::kZData));
  });
  EXPECT_EQ(lab.node(1).refs.size(), 17u);
  EXPECT_EQ(lab.record_size(1), 458u);
  EXPECT_EQ(lab.node(lab.child(1, 16)).keys.size(), 32u);
  EXPECT_EQ(lab.node(lab.child(1, 3)).keys.size(), 30u);
}

TEST(BTreeEditor, KeyOutOfRange_IsInvalid) {
  Lab lab(KnownClass::kIOBTree);
  auto editor = lab.edit();
  EXPECT_THROW(editor.set(-1, block(1)), Invalid);
  EXPECT_THROW(editor.set(std::int64_t{1} << 31, block(1)), Invalid);
  EXPECT_FALSE(editor.changed());
}

// --- what is stored, and what is checked

TEST(BTreeEditor, InsertReplaceErase_StoreTheBucketAndCheckTheWay) {
  Lab lab;
  lab.insert(0, 100);
  ASSERT_EQ(lab.sizes(), "30 30 40");
  const std::uint64_t second = lab.child(1, 1);

  lab.erase({45});
  EXPECT_EQ(lab.stored_, Oids{second});
  EXPECT_EQ(lab.checked_, Oids{1});
  lab.insert(45, 46);
  EXPECT_EQ(lab.stored_, Oids{second});
  EXPECT_EQ(lab.checked_, Oids{1});
  lab.change([](BTreeEditor& editor) { editor.set(45, ref_to(Oid{7777}, KnownClass::kZBlk1)); });
  EXPECT_EQ(lab.stored_, Oids{second});
  EXPECT_EQ(lab.checked_, Oids{1});
  EXPECT_EQ(lab.content().at(45).oid, Oid{7777});

  lab.change([](BTreeEditor& editor) {
    EXPECT_FALSE(editor.erase(1000));
    editor.set(45, ref_to(Oid{7777}, KnownClass::kZBlk1));
    EXPECT_FALSE(editor.changed());
  });
  EXPECT_EQ(lab.stored_, Oids{});
  EXPECT_EQ(lab.checked_, Oids{});
}

TEST(BTreeEditor, CheckedNodeThatAnotherClientChanged_IsAConflict) {
  Lab lab;
  lab.insert(0, 100);
  auto mine = lab.edit();
  mine.set(200, block(200));
  MemoryStorage& storage = lab.storage();
  storage.commit({{Oid{1}, storage.load(Oid{1}, storage.last_tid())->data}});
  EXPECT_THROW(lab.commit(mine), Conflict);
}

TEST(BTreeEditor, EraseOfASeparator_RewritesIt) {
  Lab lab;
  lab.insert(0, 100);
  const std::uint64_t second = lab.child(1, 1);
  lab.erase({30});
  EXPECT_EQ(lab.node(1).keys, (std::vector<std::int64_t>{31, 60}));
  EXPECT_EQ(lab.stored_, (Oids{1, second}));
  // A separator that is no key stays.
  lab.erase({31, 32});
  EXPECT_EQ(lab.node(1).keys, (std::vector<std::int64_t>{33, 60}));
  lab.erase({34});
  EXPECT_EQ(lab.node(1).keys, (std::vector<std::int64_t>{33, 60}));
  EXPECT_EQ(lab.content().size(), 96u);
}

TEST(BTreeEditor, EmptiedBucket_LeavesTheTreeAndTheChain) {
  Lab lab;
  lab.insert(0, 100);
  const std::uint64_t first = lab.child(1, 0), second = lab.child(1, 1), third = lab.child(1, 2);

  lab.erase(range(30, 60));
  EXPECT_EQ(lab.stored_, (Oids{1, first, second}));
  EXPECT_EQ(lab.sizes(), "30 40");
  EXPECT_TRUE(lab.node(second).keys.empty());
  EXPECT_EQ(lab.record_size(second), 55u);  // it goes on naming its successor
  EXPECT_EQ(lab.node(first).link->oid.value, third);

  lab.erase(range(0, 30));
  EXPECT_EQ(lab.stored_, (Oids{1, first}));
  EXPECT_EQ(lab.node(1).shape, Shape::kTree);  // its only bucket has an oid
  EXPECT_EQ(lab.record_size(1), 89u);
  EXPECT_EQ(lab.node(1).link->oid.value, third);

  lab.erase(range(60, 100));
  EXPECT_EQ(lab.stored_, (Oids{1, third}));
  EXPECT_EQ(lab.record_size(third), 37u);
  EXPECT_EQ(lab.node(1).shape, Shape::kEmpty);
  EXPECT_TRUE(lab.content().empty());
  lab.insert(5, 6);
  EXPECT_EQ(lab.node(1).shape, Shape::kEmbedded);
}

TEST(BTreeEditor, NodesThatCameAndWent_AreNotStored) {
  Lab lab;
  lab.change([](BTreeEditor& editor) {
    for (const auto key : range(0, 100)) editor.set(key, block(key));
    for (const auto key : range(0, 60)) editor.erase(key);
  });
  EXPECT_EQ(lab.stored_, Oids{1});
  EXPECT_EQ(lab.node(1).shape, Shape::kEmbedded);  // the only bucket never had an oid
  EXPECT_EQ(lab.content().size(), 40u);

  lab.change([](BTreeEditor& editor) {
    for (const auto key : range(0, 1000)) editor.set(key, block(key));
    editor.clear();
    EXPECT_FALSE(editor.max_key());
    editor.set(3, block(3));
  });
  EXPECT_EQ(lab.stored_, Oids{1});
  EXPECT_EQ(lab.content().size(), 1u);
}

TEST(BTreeEditor, ManyKeysOfABigTree_LoadOnlyTheirWays) {
  Lab lab;
  lab.insert(0, 31000);
  auto editor = lab.edit();
  lab.storage().reset_counts();
  for (std::int64_t key = 10000; key < 10060; ++key) editor.set(key, block(key + 1));
  EXPECT_LE(lab.storage().counts().loaded, 6u);
}

TEST(BTreeEditor, Reads_SeeTheChanges) {
  Lab lab;
  lab.insert(0, 100);
  auto editor = lab.edit();
  editor.set(500, block(500));
  editor.erase(99);
  editor.set(5, block(6));
  EXPECT_EQ(editor.max_key(), 500);
  EXPECT_EQ(editor.get(5), block(6));
  EXPECT_FALSE(editor.get(99));
  std::vector<std::int64_t> keys;
  editor.for_each(97, kMaxKey, [&](std::int64_t key, const Ref&) {
    keys.push_back(key);
    return true;
  });
  EXPECT_EQ(keys, (std::vector<std::int64_t>{97, 98, 500}));
}

TEST(BTreeEditor, ChainThatLeavesTheTree_IsCorrupt) {
  Lab lab;
  lab.insert(0, 100);
  MemoryStorage& storage = lab.storage();
  BTreeNode first = lab.node(lab.child(1, 0));
  first.link = ref_to(Oid{lab.child(1, 2)}, KnownClass::kLOBucket);  // goes around the second
  storage.commit({{Oid{lab.child(1, 0)}, encode_btree_node(first, Flavour::kPython3)}});
  auto editor = lab.edit();
  EXPECT_THROW(
      {
        for (const auto key : range(30, 60)) editor.erase(key);
      },
      Corrupt);
}

// --- against a model

void random_model_test(KnownClass cls, BTreeLimits limits, std::int64_t key_space,
                       std::uint32_t seed, int transactions, int edits) {
  Lab lab(cls, limits);
  std::map<std::int64_t, Ref> model;
  std::mt19937 random(seed);
  const auto pick = [&](std::int64_t below) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(below));
  };
  for (int t = 0; t < transactions; ++t) {
    // The share of deletions wanders, so that the tree grows and dies down.
    const std::int64_t deletions = pick(100);
    lab.change([&](BTreeEditor& editor) {
      for (int e = 0; e < edits; ++e) {
        const std::int64_t key = pick(key_space);
        if (pick(100) < deletions) {
          // Mostly a run, which empties buckets.
          for (std::int64_t k = key; k < key + pick(12); ++k)
            ASSERT_EQ(editor.erase(k), model.erase(k) == 1) << k;
        } else {
          const Ref value = block(pick(1'000'000));
          editor.set(key, value);
          model.insert_or_assign(key, value);
        }
        const std::int64_t probe = pick(key_space);
        const auto expected = model.find(probe);
        ASSERT_EQ(editor.get(probe),
                  expected == model.end() ? std::nullopt : std::optional(expected->second));
      }
      ASSERT_EQ(editor.max_key(),
                model.empty() ? std::nullopt : std::optional(model.rbegin()->first));
      if (pick(40) == 0) {
        editor.clear();
        model.clear();
      }
    });
    ASSERT_EQ(lab.content(), model) << "transaction " << t;
    for (const std::uint64_t oid : lab.checked_) ASSERT_FALSE(lab.stored_.contains(oid));
  }
}

TEST(BTreeEditorModel, SmallNodes_ManyLevels) {
  for (std::uint32_t seed = 0; seed < 12; ++seed)
    random_model_test(KnownClass::kLOBTree, {.max_leaf = 3, .max_internal = 2}, 400, seed, 60, 40);
  for (std::uint32_t seed = 0; seed < 12; ++seed)
    random_model_test(KnownClass::kIOBTree, {.max_leaf = 1, .max_internal = 3}, 300, seed, 60, 40);
}

TEST(BTreeEditorModel, RealNodes) {
  random_model_test(KnownClass::kLOBTree, {}, 40'000, 99, 30, 1500);
}

}  // namespace
}  // namespace zbig
