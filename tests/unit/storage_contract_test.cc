// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <future>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/filestorage_lab.h"
#include "tests/support/python.h"
#include "tests/support/storage_lab.h"
#include "zodb/error.h"

// What zodb/storage.h promises, of every backend.

namespace zbig {
namespace {

using test::text_of;

class StorageContract : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    lab_ = test::StorageLab::make(GetParam());
    if (!lab_) GTEST_SKIP() << test::Python::kMissing;
    storage_ = lab_->open(OpenMode::kCreate);
    one_ = storage_->new_oid();
    two_ = storage_->new_oid();
  }

  std::unique_ptr<test::StorageLab> lab_;
  std::shared_ptr<Storage> storage_;
  Oid one_;
  Oid two_;
};

INSTANTIATE_TEST_SUITE_P(Backends, StorageContract, ::testing::Values("file", "py3", "py2"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(StorageContract, Commit_IsReadBackAtEveryTid) {
  EXPECT_EQ(storage_->last_tid(), kNoTid);
  EXPECT_FALSE(storage_->load(one_, kMaxTid));
  EXPECT_TRUE(storage_->history(one_, 10).empty());
  EXPECT_FALSE(storage_->transactions(kNoTid, kMaxTid, true)->next());

  const auto first = test::commit(*storage_, {{one_, "zero"}, {two_, "one"}});
  const auto second = test::commit(*storage_, {{two_, "one more"}}, {"jo", "more", {}});
  EXPECT_LT(first, second);
  EXPECT_EQ(storage_->last_tid(), second);
  const auto expect = [&](Storage& s) {
    EXPECT_EQ(s.sync(), second);
    EXPECT_EQ(text_of(s.load(one_, kMaxTid)), "zero");
    EXPECT_EQ(text_of(s.load(two_, first)), "one");
    EXPECT_EQ(text_of(s.load(two_, Tid{second.value - 1})), "one");
    EXPECT_EQ(text_of(s.load(two_, second)), "one more");
    EXPECT_FALSE(s.load(two_, Tid{first.value - 1}));
    EXPECT_EQ(s.load(one_, kMaxTid)->serial, first);
    const auto history = s.history(two_, 10);
    ASSERT_EQ(history.size(), 2u);
    EXPECT_EQ(history[0].serial, second);
    EXPECT_EQ(history[0].user, "jo");
    EXPECT_EQ(history[0].description, "more");
    EXPECT_EQ(history[1].size, 3u);
    EXPECT_EQ(s.history(two_, 1).size(), 1u);
    EXPECT_EQ(s.changed_oids(kNoTid, second), (std::vector{one_, two_}));
    EXPECT_EQ(s.changed_oids(first, second), std::vector{two_});
    EXPECT_TRUE(s.changed_oids(second, kMaxTid).empty());
    const auto newest = s.transactions(kNoTid, kMaxTid, true)->next();
    ASSERT_TRUE(newest);
    EXPECT_EQ(newest->tid, second);
    ASSERT_EQ(newest->stored.size(), 1u);
    EXPECT_EQ(newest->stored[0].oid, two_);
    EXPECT_EQ(newest->stored[0].size, 8u);
  };
  expect(*storage_);
  expect(*lab_->open(OpenMode::kRead));
  expect(*open_storage(storage_->url(), OpenMode::kRead));
}

TEST_P(StorageContract, PartsOfEverySize_AreStoredAsTheirConcatenation) {
  std::mt19937 random(1);
  std::vector<std::pair<Oid, std::string>> wanted;
  const auto transaction = storage_->begin({});
  for (const std::size_t size : {1, 7, 100, 65535, 65536, 65537, 1 << 20, (2 << 20) + 3, 5}) {
    std::string data(size, '\0');
    for (auto& c : data) c = static_cast<char>(random());
    const auto bytes = as_bytes(data);
    const std::vector<ByteView> parts = {bytes.first(size / 3), {}, bytes.subspan(size / 3)};
    wanted.emplace_back(storage_->new_oid(), data);
    transaction->store(wanted.back().first, kNoTid, parts);
  }
  transaction->vote();
  transaction->finish();
  const auto reader = lab_->open(OpenMode::kRead);
  for (const auto& [oid, data] : wanted) {
    EXPECT_EQ(text_of(storage_->load(oid, kMaxTid)), data);
    EXPECT_EQ(text_of(reader->load(oid, kMaxTid)), data);
  }
}

TEST_P(StorageContract, BatchOfParts_EachGetsItsBytes) {
  std::mt19937 random(2);
  std::map<Oid, std::string> records;
  for (int i = 0; i < 1000; ++i) {
    std::string data(1 + random() % 5000, '\0');
    for (auto& c : data) c = static_cast<char>(random());
    records[storage_->new_oid()] = data;
  }
  test::commit(*storage_, {records.begin(), records.end()});
  std::vector<Oid> oids;
  for (const auto& [oid, data] : records) oids.push_back(oid);
  std::shuffle(oids.begin(), oids.end(), random);
  const auto reader = lab_->open(OpenMode::kRead);
  reader->prefetch(oids, reader->last_tid());
  std::vector<std::optional<RecordRef>> refs(oids.size());
  reader->locate(oids, kMaxTid, refs);
  std::vector<Bytes> buffers;
  std::vector<ReadPart> parts;
  for (const auto& ref : refs) {
    ASSERT_TRUE(ref);
    const auto offset = random() % ref->size;
    buffers.emplace_back(random() % (ref->size - offset + 1));
    parts.push_back({*ref, offset, buffers.back()});
  }
  parts.push_back(parts.front());  // the same bytes twice
  reader->read(parts);
  for (std::size_t i = 0; i < oids.size(); ++i) {
    const auto& data = records[oids[i]];
    ASSERT_EQ(as_text(buffers[i]), data.substr(parts[i].offset, buffers[i].size()));
  }
}

TEST_P(StorageContract, StoreOfAnOldRevision_IsAConflict) {
  const auto first = test::commit(*storage_, {{one_, "one"}});
  const auto second = test::commit(*storage_, {{one_, "two"}});
  const auto refused = [&](auto what) {
    const auto transaction = storage_->begin({});
    what(*transaction);
    transaction->vote();  // where a network storage says it
  };
  try {
    refused([&](StorageTransaction& t) { t.store(one_, first, as_bytes("three")); });
    FAIL() << "no conflict";
  } catch (const Conflict& conflict) {
    EXPECT_EQ(conflict.oid, one_);
    EXPECT_EQ(conflict.committed, second);
    EXPECT_EQ(conflict.base, first);
  }
  EXPECT_THROW(refused([&](StorageTransaction& t) { t.check_current(one_, first); }), Conflict);
  EXPECT_THROW(refused([&](StorageTransaction& t) { t.check_current(two_, kNoTid); }), Conflict);
  EXPECT_NO_THROW(refused([&](StorageTransaction& t) { t.check_current(one_, second); }));
  EXPECT_EQ(storage_->sync(), second);
  EXPECT_EQ(text_of(storage_->load(one_, second)), "two");
}

TEST_P(StorageContract, AbortAnywhere_ChangesNothing) {
  const Tid tid = test::commit(*storage_, {{one_, "one"}});
  const std::string large(3 << 20, 'x');
  for (const int step : {0, 1, 2, 3}) {
    {
      const auto transaction = storage_->begin({"u", "d", {}});
      if (step >= 1) transaction->store(one_, tid, as_bytes("given up"));
      if (step >= 2) transaction->store(two_, kNoTid, as_bytes(large));
      if (step >= 3) transaction->vote();
      if (step == 1) transaction->abort();
    }
    EXPECT_EQ(storage_->sync(), tid);
    EXPECT_FALSE(storage_->load(two_, kMaxTid));
  }
  EXPECT_NE(storage_->new_oid(), two_);  // oids are not given out again
  const Tid after = test::commit(*storage_, {{one_, "after"}});
  EXPECT_EQ(text_of(lab_->open(OpenMode::kRead)->load(one_, after)), "after");
}

TEST_P(StorageContract, Commit_IsToldToSubscribersBeforeItIsTheHead) {
  const auto reader = lab_->open(OpenMode::kRead);
  std::promise<std::vector<Oid>> told;
  Tid told_tid;
  Tid head_then;
  const auto subscription = reader->subscribe([&](Tid tid, std::span<const Oid> oids) {
    head_then = reader->last_tid();
    told_tid = tid;
    told.set_value({oids.begin(), oids.end()});
  });
  reader->sync();
  const Tid tid = test::commit(*storage_, {{one_, "one"}, {two_, "two"}});
  EXPECT_EQ(reader->sync(), tid);
  auto future = told.get_future();
  ASSERT_EQ(future.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  EXPECT_THAT(future.get(), ::testing::UnorderedElementsAre(one_, two_));
  EXPECT_EQ(told_tid, tid);
  EXPECT_LT(head_then, tid);
}

TEST_P(StorageContract, MarkOfAVotedTransaction_FindsIt) {
  test::commit(*storage_, {{one_, "one"}});
  const Tid base = storage_->last_tid();
  std::string mark;
  Tid tid;
  {
    const auto transaction = storage_->begin({"jo", "marked", {}});
    transaction->store(one_, base, as_bytes("two"));
    transaction->vote();
    mark = transaction->voted_mark();
    tid = transaction->finish();
  }
  ASSERT_FALSE(mark.empty());
  EXPECT_EQ(mark.find('\n'), std::string::npos);
  EXPECT_EQ(storage_->find_voted(mark), tid);
  EXPECT_EQ(storage_->find_voted("anything"), std::nullopt);
}

TEST_P(StorageContract, SecondTransaction_WaitsForTheFirst) {
  auto first = storage_->begin({});
  first->store(one_, kNoTid, as_bytes("one"));
  auto second = std::async(std::launch::async, [&] {
    return test::commit(*storage_, {{two_, "two"}});
  });
  EXPECT_EQ(second.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  first->vote();
  const auto tid = first->finish();
  EXPECT_GT(second.get(), tid);
}

TEST_P(StorageContract, WrongCalls_AreRefused) {
  const std::string longest(65535, 'x');
  for (const auto& meta :
       {TransactionMeta{longest + "x", "", {}}, {"", longest + "x", {}}, {"", "", Bytes(65536)}}) {
    EXPECT_THROW(storage_->begin(meta), Invalid);
  }
  const auto transaction = storage_->begin({longest, longest, {}});
  transaction->store(one_, kNoTid, as_bytes("x"));
  EXPECT_THROW(transaction->finish(), Invalid);
  transaction->vote();
  EXPECT_THROW(transaction->store(two_, kNoTid, as_bytes("x")), Invalid);
  EXPECT_THROW(transaction->vote(), Invalid);
  transaction->finish();
  EXPECT_THROW(transaction->finish(), Invalid);
  transaction->abort();

  const auto reader = lab_->open(OpenMode::kRead);
  EXPECT_TRUE(reader->read_only());
  EXPECT_FALSE(storage_->read_only());
  EXPECT_THROW(reader->begin({}), ReadOnly);
  EXPECT_THROW(reader->new_oid(), ReadOnly);
}

}  // namespace
}  // namespace zbig
