// SPDX-License-Identifier: BSD-3-Clause

// The BTree editor beside the BTrees package, which does the same edits: the same nodes come out,
// byte for byte, the same are stored, and the same are checked. And what the editor commits passes
// the package's own checkers.

#include <random>
#include <sstream>

#include <gtest/gtest.h>

#include "tests/support/filestorage_lab.h"
#include "tests/support/python.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tree_comparison.h"
#include "zodb/btree_editor.h"

namespace zbig {
namespace {

struct Op {
  char what;  // s, d, c
  std::int64_t key = 0;
  std::size_t value = 0;  // which object of the pool
};
using Transaction = std::vector<Op>;

// Transactions on a tree that grows and dies down, some wild and some in runs.
class Edits {
 public:
  // `mixed`: insertions and deletions in one transaction.
  Edits(std::uint32_t seed, std::int64_t keys, std::size_t pool, bool mixed)
      : random_(seed), keys_(keys), pool_(pool), mixed_(mixed) {}

  Transaction next() {
    Transaction ops;
    const std::uint64_t deletions = mixed_ ? random_() % 100 : random_() % 2 * 100;
    for (std::uint64_t n = random_() % 60 + 1; n-- > 0;) {
      const auto key = static_cast<std::int64_t>(random_() % static_cast<std::uint64_t>(keys_));
      const auto run = static_cast<std::int64_t>(random_() % 4 == 0 ? random_() % 20 : 1);
      for (std::int64_t k = key; k < key + run && k < keys_; ++k) {
        if (random_() % 100 < deletions)
          erase(ops, k);
        else
          set(ops, k);
      }
    }
    if (ops.empty()) set(ops, 0);
    if (random_() % 25 == 0 && !content_.empty()) {
      content_.clear();
      ops.assign(1, Op{'c'});
    }
    return ops;
  }
  const std::map<std::int64_t, std::size_t>& content() const { return content_; }

 private:
  void set(Transaction& ops, std::int64_t key) {
    // Never the value that is there: BTrees takes note even of a change that is none.
    auto [at, added] = content_.try_emplace(key, random_() % pool_);
    if (!added) at->second = (at->second + 1 + random_() % (pool_ - 1)) % pool_;
    ops.push_back({'s', key, at->second});
  }
  void erase(Transaction& ops, std::int64_t key) {
    if (content_.erase(key) == 1) ops.push_back({'d', key});
  }

  std::mt19937 random_;
  std::int64_t keys_;
  std::size_t pool_;
  bool mixed_;
  std::map<std::int64_t, std::size_t> content_;
};

struct Sizes {
  std::uint32_t seed;
  BTreeLimits limits;
  std::int64_t keys;
  // With small nodes a mixed transaction brings BTrees to the corner case that btree.md tells.
  bool mixed;
};

class BTreePeer : public ::testing::TestWithParam<Sizes> {
 protected:
  static constexpr std::size_t kPool = 50;
  static constexpr int kTransactions = 60;

  void SetUp() override {
    python_ = test::Python::find("py3");
    if (!python_) GTEST_SKIP() << test::Python::kMissing;
    std::istringstream made(python_->run("btrees.py", {"make", path_, std::to_string(kPool)}));
    made >> tree_.value;
    for (std::uint64_t oid; made >> oid;)
      pool_.push_back(ref_to(Oid{oid}, KnownClass::kPersistentMapping));
    ASSERT_EQ(pool_.size(), kPool);
  }

  void apply(BTreeEditor& editor, const Transaction& ops) {
    for (const Op& op : ops) {
      if (op.what == 's') editor.set(op.key, pool_[op.value]);
      if (op.what == 'c') editor.clear();
      if (op.what != 'd') continue;
      EXPECT_TRUE(editor.erase(op.key));
    }
  }

  test::TempDir dir_;
  std::string path_ = dir_ / "Data.fs";
  std::optional<test::Python> python_;
  Oid tree_;
  std::vector<Ref> pool_;
};

TEST_P(BTreePeer, SameEdits_MakeTheSameRecords) {
  const Sizes& sizes = GetParam();
  Edits edits(sizes.seed, sizes.keys, kPool, sizes.mixed);
  std::vector<Transaction> transactions;
  std::string script;
  for (int i = 0; i < kTransactions; ++i) {
    transactions.push_back(edits.next());
    for (const Op& op : transactions.back()) {
      script += op.what;
      if (op.what != 'c') script += " " + std::to_string(op.key);
      if (op.what == 's') script += " " + std::to_string(op.value);
      script += "\n";
    }
    script += ".\n";
  }
  test::spew(dir_ / "ops", script);
  std::istringstream commits(
      python_->run("btrees.py", {"edit", path_, dir_ / "ops", std::to_string(sizes.limits.max_leaf),
                                 std::to_string(sizes.limits.max_internal)}));

  const auto storage = open_storage(path_, OpenMode::kRead);
  Tid before = storage->history(tree_, 1000).back().serial;
  for (const Transaction& ops : transactions) {
    std::string line;
    ASSERT_TRUE(std::getline(commits, line));
    std::istringstream fields(line);
    Tid after;
    fields >> after.value;
    std::vector<Oid> checked_by_original;
    for (std::uint64_t oid; fields >> oid;) checked_by_original.push_back(Oid{oid});

    const StorageNodeSource source(*storage, before);
    std::uint64_t next_oid = 0x7000000000000000;
    BTreeEditor editor(
        source, tree_, KnownClass::kLOBTree, [&] { return Oid{next_oid++}; }, sizes.limits);
    apply(editor, ops);
    test::TreeComparison comparison(*storage, before, after, editor);
    comparison.compare(tree_);
    EXPECT_EQ(comparison.stored(), comparison.stored_by_original());
    std::vector<Oid> checked;
    for (const auto& check : editor.checks()) checked.push_back(check.oid);
    EXPECT_EQ(checked, checked_by_original);
    if (HasFailure()) FAIL() << "at tid " << after.hex();
    before = after;
  }
}

TEST_P(BTreePeer, WhatTheEditorCommits_PassesTheCheckersOfBTrees) {
  const Sizes& sizes = GetParam();
  Edits edits(sizes.seed + 1000, sizes.keys, kPool, /*mixed=*/true);
  std::vector<std::string> arguments{"check", path_};
  std::vector<std::string> expected;
  {
    const auto storage = open_storage(path_, OpenMode::kWrite);
    for (int i = 0; i < kTransactions; ++i) {
      const StorageNodeSource source(*storage, storage->last_tid());
      BTreeEditor editor(
          source, tree_, KnownClass::kLOBTree, [&] { return storage->new_oid(); }, sizes.limits);
      apply(editor, edits.next());
      const auto transaction = storage->begin({});
      for (const auto& store : editor.stores(Flavour::kPython3))
        transaction->store(store.oid, store.base, store.record);
      for (const auto& check : editor.checks()) transaction->check_current(check.oid, check.serial);
      transaction->vote();
      arguments.push_back(std::to_string(transaction->finish().value));
      std::string items;
      for (const auto& [key, value] : edits.content())
        items += (items.empty() ? "" : " ") + std::to_string(key) + ":" +
                 std::to_string(pool_[value].oid.value);
      expected.push_back(items);
    }
  }
  std::istringstream printed(python_->run("btrees.py", arguments));
  for (const std::string& items : expected) {
    std::string line;
    ASSERT_TRUE(std::getline(printed, line));
    ASSERT_EQ(line, items);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, BTreePeer,
                         ::testing::Values(Sizes{1, {2, 3}, 150, false},
                                           Sizes{2, {3, 3}, 300, false},
                                           Sizes{3, {1, 4}, 100, false},
                                           Sizes{4, {4, 6}, 1000, false},
                                           Sizes{5, {60, 500}, 500, true}),
                         [](const auto& info) { return "seed" + std::to_string(info.param.seed); });

}  // namespace
}  // namespace zbig
