// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/btree.h"

#include <gtest/gtest.h>

#include "tests/support/format_page.h"
#include "tests/support/memory_storage.h"
#include "zodb/error.h"

namespace zbig {
namespace {

using test::hex_examples;
using test::MemoryStorage;
using Shape = BTreeNode::Shape;

constexpr KnownClass kTreeClass = KnownClass::kLOBTree;
constexpr KnownClass kBucketClass = KnownClass::kLOBucket;

BTreeNode decode(const Bytes& record) { return decode_btree_node(ObjectRecord::parse(record)); }

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Corrupt& error) {
    return error.what();
  }
  return "nothing was thrown";
}

#define EXPECT_CORRUPT(action, sentence)                                   \
  EXPECT_NE(message_of([&] { action; }).find(sentence), std::string::npos) \
      << message_of([&] { action; })

// --- the page

TEST(BTreePage, EachExample_IsReadAndWrittenAgainToTheSameBytes) {
  const auto examples = hex_examples("btree.md");
  ASSERT_GE(examples.size(), 15u);
  for (const auto& [name, bytes] : examples) {
    const BTreeNode node = decode(bytes);
    const Bytes again = encode_btree_node(node, detect_flavour(bytes));
    if (!name.ends_with("memoless")) {
      EXPECT_EQ(again, bytes) << name;
      continue;
    }
    const BTreeNode reread = decode(again);
    EXPECT_EQ(reread.keys, node.keys);
    EXPECT_EQ(reread.refs, node.refs);
    EXPECT_EQ(reread.link, node.link);
  }
}

TEST(BTreePage, Examples_SayWhatThePageSays) {
  const auto examples = hex_examples("btree.md");
  const auto node = [&](const char* name) { return decode(examples.at(name)); };

  EXPECT_EQ(node("lobtree-empty").shape, Shape::kEmpty);

  const BTreeNode embedded = node("lobtree-embedded");
  EXPECT_EQ(embedded.shape, Shape::kEmbedded);
  EXPECT_EQ(embedded.keys, std::vector<std::int64_t>{0});
  EXPECT_EQ(embedded.refs, std::vector{ref_to(Oid{6}, KnownClass::kZBlk0)});

  EXPECT_EQ(node("lobtree-keys").keys,
            (std::vector<std::int64_t>{0, 1, 300, 70000, 0x7fffffff, 0x80000000, 1ll << 40}));

  const BTreeNode two = node("lobtree-two-buckets");
  EXPECT_EQ(two.shape, Shape::kTree);
  EXPECT_EQ(two.keys, std::vector<std::int64_t>{30});
  EXPECT_EQ(two.refs, (std::vector{ref_to(Oid{28}, kBucketClass), ref_to(Oid{29}, kBucketClass)}));
  EXPECT_EQ(two.link, ref_to(Oid{28}, kBucketClass));

  const BTreeNode bucket = node("lobucket-next");
  EXPECT_EQ(bucket.shape, Shape::kBucket);
  EXPECT_EQ(bucket.link, ref_to(Oid{29}, kBucketClass));
  EXPECT_FALSE(node("lobucket-last").link);
  EXPECT_TRUE(node("lobucket-emptied").keys.empty());
}

// --- decoding

// The record of a tree whose state a test spells out.
template <typename Write>
Bytes record_of(KnownClass cls, Write write) {
  RecordWriter writer(Flavour::kPython3, ClassId::of(cls).name());
  write(writer);
  return writer.finish();
}

void write_ref(RecordWriter& w, std::uint64_t oid, KnownClass cls) {
  w.ref(Oid{oid}, ClassId::of(cls).name());
}

TEST(BTreeDecode, ReferenceForms_AreKept) {
  const Bytes record = record_of(kBucketClass, [](RecordWriter& w) {
    w.begin_tuple(1);
    w.begin_tuple(6);
    w.integer(1);
    w.ref(Oid{1}, {"wendelin.bigfile.file_zodb", "ZBlk"});
    w.integer(2);
    w.ref(Oid{2}, {"wendelin.bigfile.file_zodb", "ZBlk1"}, RefForm::kModuleName);
    w.integer(3);
    w.ref(Oid{3}, {}, RefForm::kOid);
    w.end_tuple();
    w.end_tuple();
  });
  const BTreeNode node = decode(record);
  EXPECT_EQ(node.refs[0].cls->name().name, "ZBlk");
  EXPECT_EQ(node.refs[0].cls->known(), KnownClass::kZBlk0);
  EXPECT_EQ(node.refs[1].form, RefForm::kModuleName);
  EXPECT_EQ(node.refs[2].form, RefForm::kOid);
  EXPECT_EQ(encode_btree_node(node, Flavour::kPython3), record);
}

TEST(BTreeDecode, BrokenStates_AreCorrupt) {
  const auto broken = [](KnownClass cls, const char* sentence, auto write) {
    EXPECT_CORRUPT(decode(record_of(cls, write)), sentence);
  };
  broken(kTreeClass, "the state is an integer", [](RecordWriter& w) { w.integer(1); });
  broken(kTreeClass, "the embedded bucket is empty", [](RecordWriter& w) {
    for (int i = 0; i < 3; ++i) w.begin_tuple(1);
    w.begin_tuple(0);
    for (int i = 0; i < 4; ++i) w.end_tuple();
  });
  broken(kTreeClass, "does not begin and end with one", [](RecordWriter& w) {
    w.begin_tuple(2);
    w.begin_tuple(2);
    write_ref(w, 1, kBucketClass);
    w.integer(3);
    w.end_tuple();
    write_ref(w, 1, kBucketClass);
    w.end_tuple();
  });
  broken(kTreeClass, "where a reference into this database should be is None", [](RecordWriter& w) {
    w.begin_tuple(2);
    w.begin_tuple(1);
    write_ref(w, 1, kBucketClass);
    w.end_tuple();
    w.none();
    w.end_tuple();
  });
  broken(kBucketClass, "the state is None", [](RecordWriter& w) { w.none(); });
  broken(kBucketClass, "the last key has no value", [](RecordWriter& w) {
    w.begin_tuple(1);
    w.begin_tuple(1);
    w.integer(3);
    w.end_tuple();
    w.end_tuple();
  });
  const auto two_keys = [](std::int64_t a, std::int64_t b) {
    return [a, b](RecordWriter& w) {
      w.begin_tuple(1);
      w.begin_tuple(4);
      w.integer(a);
      write_ref(w, 1, KnownClass::kZBlk0);
      w.integer(b);
      write_ref(w, 2, KnownClass::kZBlk0);
      w.end_tuple();
      w.end_tuple();
    };
  };
  broken(kBucketClass, "key 5 comes behind key 5", two_keys(5, 5));
  broken(kBucketClass, "key 4 comes behind key 5", two_keys(5, 4));
  broken(KnownClass::kIOBucket, "key 2147483648 is too large", two_keys(5, 1ll << 31));
  broken(kBucketClass, "of class os.system, which has no place", [](RecordWriter& w) {
    w.begin_tuple(1);
    w.begin_tuple(2);
    w.integer(1);
    w.ref(Oid{7}, {"os", "system"});
    w.end_tuple();
    w.end_tuple();
  });
  broken(KnownClass::kZBlk0, "not a node of a BTree", [](RecordWriter& w) { w.none(); });
}

// --- trees in a storage

class Tree : public ::testing::Test {
 protected:
  void put(std::uint64_t oid, const BTreeNode& node) {
    records_.push_back({Oid{oid}, encode_btree_node(node, Flavour::kPython3)});
  }
  void commit() {
    at_ = storage_.commit(records_);
    records_.clear();
  }
  BTreeNode tree(std::vector<std::int64_t> keys, std::vector<std::uint64_t> children,
                 KnownClass child_cls, std::uint64_t first) {
    BTreeNode node(ClassId::of(kTreeClass), Shape::kTree);
    node.keys = std::move(keys);
    for (const auto child : children) node.refs.push_back(ref_to(Oid{child}, child_cls));
    node.link = ref_to(Oid{first}, kBucketClass);
    return node;
  }
  BTreeNode bucket(std::vector<std::int64_t> keys, std::optional<std::uint64_t> next = {}) {
    BTreeNode node(ClassId::of(kBucketClass), Shape::kBucket);
    for (const auto key : keys)
      node.refs.push_back(ref_to(Oid{1000 + static_cast<std::uint64_t>(key)}, KnownClass::kZBlk0));
    node.keys = std::move(keys);
    if (next) node.link = ref_to(Oid{*next}, kBucketClass);
    return node;
  }
  // Root 1 over trees 2 and 3, over buckets 4 to 7.
  void put_good_tree() {
    put(1, tree({100}, {2, 3}, kTreeClass, 4));
    put(2, tree({20}, {4, 5}, kBucketClass, 4));
    put(3, tree({200}, {6, 7}, kBucketClass, 6));
    put(4, bucket({1, 5}, 5));
    put(5, bucket({20, 99}, 6));
    put(6, bucket({150}, 7));
    put(7, bucket({200, 300}));
  }
  std::vector<std::int64_t> keys(std::int64_t first = kMinKey, std::int64_t last = kMaxKey) {
    const StorageNodeSource source(storage_, at_);
    std::vector<std::int64_t> keys;
    BTree(source, Oid{1}, kTreeClass).for_each(first, last, [&](std::int64_t key, const Ref& ref) {
      EXPECT_EQ(ref.oid.value, 1000 + static_cast<std::uint64_t>(key));
      keys.push_back(key);
      return true;
    });
    return keys;
  }
  std::optional<Ref> find(std::int64_t key) {
    const StorageNodeSource source(storage_, at_);
    return BTree(source, Oid{1}, kTreeClass).find(key);
  }

  MemoryStorage storage_;
  std::vector<std::pair<Oid, std::optional<Bytes>>> records_;
  Tid at_;
};

TEST_F(Tree, FindAndIterate_SeeEveryKey) {
  put_good_tree();
  commit();
  const std::vector<std::int64_t> all{1, 5, 20, 99, 150, 200, 300};
  EXPECT_EQ(keys(), all);
  for (const auto key : all) EXPECT_TRUE(find(key)) << key;
  for (const auto key : {0, 2, 19, 21, 100, 149, 199, 301}) EXPECT_FALSE(find(key)) << key;
  EXPECT_EQ(keys(5, 150), (std::vector<std::int64_t>{5, 20, 99, 150}));
  EXPECT_EQ(keys(6, 19), std::vector<std::int64_t>{});
  EXPECT_EQ(keys(10, 9), std::vector<std::int64_t>{});
  EXPECT_EQ(keys(300, kMaxKey), std::vector<std::int64_t>{300});

  const StorageNodeSource source(storage_, at_);
  const BTree tree(source, Oid{1}, kTreeClass);
  EXPECT_EQ(tree.max_key(), 300);
  const Leaf leaf = tree.leaf(50);
  EXPECT_EQ(leaf.node->oid, Oid{5});
  EXPECT_EQ(leaf.first, 20);
  EXPECT_EQ(leaf.last, 99);
  ASSERT_EQ(leaf.path.size(), 2u);
  EXPECT_EQ(leaf.path[0]->oid, Oid{1});
  EXPECT_EQ(leaf.path[1]->oid, Oid{2});
}

TEST_F(Tree, Iteration_LoadsChildrenInBatchesAndStopsWhenTold) {
  put_good_tree();
  commit();
  storage_.reset_counts();
  keys();
  EXPECT_LE(storage_.counts().load_batches, 4u);  // the root, its children, and theirs twice
  EXPECT_EQ(storage_.counts().loaded, 7u);

  const StorageNodeSource source(storage_, at_);
  int seen = 0;
  BTree(source, Oid{1}, kTreeClass).for_each(kMinKey, kMaxKey, [&](std::int64_t, const Ref&) {
    return ++seen < 3;
  });
  EXPECT_EQ(seen, 3);
}

TEST_F(Tree, EmptyAndEmbedded_AreTreesToo) {
  put(1, BTreeNode(ClassId::of(kTreeClass)));
  commit();
  EXPECT_FALSE(find(0));
  EXPECT_EQ(keys().size(), 0u);
  const StorageNodeSource source(storage_, at_);
  EXPECT_FALSE(BTree(source, Oid{1}, kTreeClass).max_key());

  BTreeNode embedded = bucket({3, 4});
  embedded.cls = ClassId::of(kTreeClass);
  embedded.shape = Shape::kEmbedded;
  put(1, embedded);
  commit();
  EXPECT_EQ(keys(), (std::vector<std::int64_t>{3, 4}));
}

TEST_F(Tree, BrokenTree_NamesTheObject) {
  struct Case {
    const char* what;
    std::uint64_t oid;
    BTreeNode node;
    const char* sentence;
  };
  for (const Case& c : {
           Case{"root is a bucket", 1, bucket({1}), "object 0x1 at"},
           Case{"node is its own child", 2, tree({20}, {2, 5}, kTreeClass, 4), "object 0x2 at"},
           Case{"long cycle without keys", 2, tree({}, {2}, kTreeClass, 4), "the tree is too deep"},
           Case{"cycle through the root", 2, tree({}, {1}, kTreeClass, 4), "object 0x1 at"},
           Case{"child missing", 2, tree({20}, {4, 99}, kBucketClass, 4), "object 0x63 at"},
           Case{"child is in two places", 2, tree({20}, {4, 4}, kBucketClass, 4), "object 0x4 at"},
           Case{"child class differs", 2, tree({20}, {4, 5}, kTreeClass, 4),
                "its parent says that it is a BTrees.LOBTree.LOBTree"},
           Case{"separator out of range", 2, tree({100}, {4, 5}, kBucketClass, 4), "object 0x2 at"},
           Case{"separator at the low end", 3, tree({100}, {6, 7}, kBucketClass, 6),
                "object 0x3 at"},
           Case{"key below its range", 5, bucket({19, 20}), "object 0x5 at"},
           Case{"key above its range", 5, bucket({20, 100}), "object 0x5 at"},
           Case{"bucket is empty", 5, bucket({}), "an empty node is linked"},
           Case{"tree is empty", 2, BTreeNode(ClassId::of(kTreeClass)), "an empty node is linked"},
           Case{"other kind of tree", 2, BTreeNode(ClassId::of(KnownClass::kIOBTree)),
                "object 0x2 at"},
       }) {
    put_good_tree();
    commit();
    put(c.oid, c.node);
    commit();
    const std::string said = message_of([&] { keys(); });
    EXPECT_NE(said.find(c.sentence), std::string::npos) << c.what << ": " << said;
  }
}

TEST_F(Tree, ManyWaysToOneNode_AreNotWalkedManyTimes) {
  // 400 children without a key of their own, which all are one chain down to one bucket: every way
  // but one gives the bucket a wrong range.
  std::vector<std::int64_t> separators;
  for (std::int64_t key = 1; key < 400; ++key) separators.push_back(key);
  put(1, tree(separators, std::vector<std::uint64_t>(400, 2), kTreeClass, 4));
  put(2, tree({}, {3}, kTreeClass, 4));
  put(3, tree({}, {4}, kBucketClass, 4));
  put(4, bucket({0}));
  commit();
  EXPECT_CORRUPT(keys(), "object 0x4 at");
}

// --- folders

Bytes folder_bucket(std::vector<std::pair<std::string, std::uint64_t>> entries,
                    std::uint64_t next) {
  return record_of(KnownClass::kOOBucket, [&](RecordWriter& w) {
    w.begin_tuple(next ? 2 : 1);
    w.begin_tuple(2 * entries.size() + 4);
    for (const auto& [key, oid] : entries) {
      w.text(key);
      write_ref(w, oid, KnownClass::kZBigFile);
    }
    w.integer(5);  // a key that no path can name
    write_ref(w, 99, KnownClass::kZBigFile);
    w.text("plain");  // a value that is no object of its own
    w.integer(1);
    w.end_tuple();
    if (next) write_ref(w, next, KnownClass::kOOBucket);
    w.end_tuple();
  });
}

TEST(Folder, TwoBuckets_AreListedInOrder) {
  MemoryStorage storage;
  const Tid at = storage.commit({{Oid{1}, record_of(KnownClass::kOOBTree,
                                                    [](RecordWriter& w) {
                                                      w.begin_tuple(2);
                                                      w.begin_tuple(3);
                                                      write_ref(w, 2, KnownClass::kOOBucket);
                                                      w.text("m");
                                                      write_ref(w, 3, KnownClass::kOOBucket);
                                                      w.end_tuple();
                                                      write_ref(w, 2, KnownClass::kOOBucket);
                                                      w.end_tuple();
                                                    })},
                                 {Oid{2}, folder_bucket({{"a", 10}, {"b", 11}}, 3)},
                                 {Oid{3}, folder_bucket({{"m", 12}}, 0)}});
  const auto entries = list_folder(storage, Oid{1}, at);
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].key, "a");
  EXPECT_EQ(entries[2].oid, Oid{12});
  EXPECT_EQ(entries[2].cls, "wendelin.bigfile.file_zodb.ZBigFile");
  EXPECT_THROW(list_folder(storage, Oid{1}, at, 2), Failed);
}

TEST(Folder, EmbeddedAndEmpty_AreListed) {
  MemoryStorage storage;
  const Tid at = storage.commit(
      {{Oid{1}, record_of(KnownClass::kOOBTree,
                          [](RecordWriter& w) {
                            for (int i = 0; i < 3; ++i) w.begin_tuple(1);
                            w.begin_tuple(2);
                            w.text("vol");
                            write_ref(w, 9, KnownClass::kZBigFile);
                            for (int i = 0; i < 4; ++i) w.end_tuple();
                          })},
       {Oid{2}, record_of(KnownClass::kOOBTree, [](RecordWriter& w) { w.none(); })}});
  ASSERT_EQ(list_folder(storage, Oid{1}, at).size(), 1u);
  EXPECT_EQ(list_folder(storage, Oid{1}, at)[0].key, "vol");
  EXPECT_TRUE(list_folder(storage, Oid{2}, at).empty());
}

TEST(Folder, CycleAndMissingNode_AreCorrupt) {
  MemoryStorage storage;
  const auto tree_of = [](std::uint64_t child) {
    return record_of(KnownClass::kOOBTree, [child](RecordWriter& w) {
      w.begin_tuple(2);
      w.begin_tuple(1);
      write_ref(w, child, KnownClass::kOOBTree);
      w.end_tuple();
      write_ref(w, 2, KnownClass::kOOBucket);
      w.end_tuple();
    });
  };
  const Tid at = storage.commit({{Oid{1}, tree_of(2)}, {Oid{2}, tree_of(1)}, {Oid{3}, tree_of(9)}});
  EXPECT_CORRUPT(list_folder(storage, Oid{1}, at), "object 0x1");
  EXPECT_CORRUPT(list_folder(storage, Oid{3}, at), "object 0x9");
}

}  // namespace
}  // namespace zbig
