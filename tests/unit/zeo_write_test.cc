// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <atomic>
#include <future>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bigfile/commit.h"
#include "bigfile/view.h"
#include "bigfile/volume.h"
#include "tests/support/python.h"
#include "tests/support/volume_lab.h"
#include "tests/support/zeo_proxy.h"
#include "tests/support/zeo_server.h"
#include "zodb/error.h"
#include "zodb/filestorage/filestorage.h"
#include "zodb/zeo/zeo.h"

// Committing to real ZEO servers: what others see, conflicts, and lines that are cut in each phase.

namespace zbig {
namespace {

using test::ZeoProxy;

Bytes record_of(std::string_view text) {
  Bytes record;
  // An object that no server knows the class of, with a text for state.
  append(record,
         "\x80\x03"
         "cexample\nThing\n.\x80\x03X");
  for (int i = 0; i < 4; ++i) record.push_back(static_cast<std::byte>(text.size() >> 8 * i));
  append(record, text);
  append(record, ".");
  return record;
}

Tid commit(Storage& storage, const std::vector<std::pair<Oid, Tid>>& objects, std::string_view text,
           const TransactionMeta& meta = {"me", "a commit", {}}) {
  const auto transaction = storage.begin(meta);
  for (const auto& [oid, base] : objects) transaction->store(oid, base, record_of(text));
  EXPECT_TRUE(transaction->vote().empty());
  return transaction->finish();
}

struct Case {
  const char* environment;
  const char* conf;
};

class ZeoWrite : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    server_ = test::ZeoServer::start(
        {.environment = GetParam().environment, .conf = GetParam().conf, .data = {}});
    if (!server_) GTEST_SKIP() << test::Python::kMissing;
    storage_ = open_zeo(server_->url(), OpenMode::kWrite);
  }
  std::unique_ptr<Storage> file() const {
    return open_filestorage(server_->file(), OpenMode::kRead);
  }
  std::unique_ptr<test::ZeoServer> server_;
  std::unique_ptr<Storage> storage_;
};

INSTANTIATE_TEST_SUITE_P(Servers, ZeoWrite,
                         testing::Values(Case{"py3", "msgpack true"}, Case{"py3", ""},
                                         Case{"py2", ""}),
                         [](const auto& info) {
                           return std::string(info.param.environment) +
                                  (info.param.conf[0] != 0 ? "_msgpack" : "_pickle");
                         });

void sees_commits(Storage& writer, const std::string& url, const std::string& file) {
  const auto reader = open_zeo(url, OpenMode::kRead);
  reader->sync();
  std::promise<std::pair<Tid, std::vector<Oid>>> told;
  Tid head_when_told{1};
  const auto subscription = reader->subscribe([&](Tid tid, std::span<const Oid> oids) {
    head_when_told = reader->last_tid();
    told.set_value({tid, {oids.begin(), oids.end()}});
  });
  const Oid oid = writer.new_oid();
  const Bytes extension = {std::byte{0x80}, std::byte{3},   std::byte{'}'}, std::byte{'q'},
                           std::byte{0},    std::byte{'X'}, std::byte{1},   std::byte{0},
                           std::byte{0},    std::byte{0},   std::byte{'k'}, std::byte{'q'},
                           std::byte{1},    std::byte{'K'}, std::byte{7},   std::byte{'s'},
                           std::byte{'.'}};
  const Tid tid = commit(writer, {{kRootOid, kNoTid}, {oid, kNoTid}}, "first",
                         {"us\xc3\xa9r", "d\xc3\xa9scription", extension});
  EXPECT_EQ(writer.last_tid(), tid);
  EXPECT_EQ(writer.load(oid, tid)->serial, tid);
  auto future = told.get_future();
  ASSERT_EQ(future.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  const auto [told_tid, told_oids] = future.get();
  EXPECT_EQ(told_tid, tid);
  EXPECT_THAT(told_oids, testing::UnorderedElementsAre(kRootOid, oid));
  EXPECT_LT(head_when_told, tid);
  EXPECT_EQ(reader->sync(), tid);
  EXPECT_EQ(reader->load(oid, tid)->data, record_of("first"));
  EXPECT_EQ(reader->changed_oids(kNoTid, tid), (std::vector<Oid>{kRootOid, oid}));

  const auto raw = open_filestorage(file, OpenMode::kRead);
  const auto info = raw->transactions(tid, tid, false)->next();
  ASSERT_TRUE(info);
  EXPECT_EQ(info->user, "us\xc3\xa9r");
  EXPECT_EQ(info->description, "d\xc3\xa9scription");
  EXPECT_EQ(info->extension, extension);
  EXPECT_EQ(raw->load(oid, tid)->data, record_of("first"));
}

void finds_conflicts(Storage& storage) {
  const Oid oid = storage.new_oid();
  const Tid first = commit(storage, {{oid, kNoTid}}, "one");
  const Tid second = commit(storage, {{oid, first}}, "two");
  EXPECT_EQ(storage.load(oid, first)->data, record_of("one"));
  EXPECT_EQ(storage.load(oid, second)->data, record_of("two"));

  auto transaction = storage.begin({});
  transaction->store(oid, first, record_of("late"));
  try {
    transaction->vote();
    FAIL();
  } catch (const Conflict& conflict) {
    EXPECT_EQ(conflict.oid, oid);
    EXPECT_EQ(conflict.committed, second);
    EXPECT_EQ(conflict.base, first);
  }
  transaction = storage.begin({});
  transaction->check_current(oid, first);
  EXPECT_THROW(transaction->vote(), Conflict);
  transaction = storage.begin({});
  transaction->check_current(Oid{0x777777}, first);
  EXPECT_THROW(transaction->vote(), Conflict);
  transaction = storage.begin({});
  transaction->check_current(oid, second);
  EXPECT_TRUE(transaction->vote().empty());
  transaction->abort();
  transaction = storage.begin({});
  transaction->store(oid, second, record_of("given up"));
  transaction.reset();
  EXPECT_EQ(storage.load(oid, storage.sync())->data, record_of("two"));
  commit(storage, {{oid, second}}, "three");
}

// Writes a block of /A as it was at `base`.
CommitResult write_block(Storage& storage, Tid base, std::uint64_t block, std::uint64_t seed) {
  test::BytesSource source;
  source.write(block * 4096, test::noise(seed, 4096));
  const VolumeCommit work{find_volume(storage, "/A", base), base, &source, BlockFormat::kZBlk0};
  return commit(storage, std::span(&work, 1), {}, {});
}

Bytes read_block(const std::shared_ptr<Storage>& storage, std::uint64_t block) {
  const Tid at = storage->sync();
  Bytes bytes(4096);
  View::open(storage, find_volume(*storage, "/A", at), at)->read(block * 4096, bytes);
  return bytes;
}

void merges_others_blocks(const std::string& url, bool server_merges) {
  const std::shared_ptr<Storage> one = open_zeo(url, OpenMode::kWrite);
  const std::shared_ptr<Storage> other = open_zeo(url, OpenMode::kWrite);
  NewVolume volume;
  volume.blksize = 4096;
  create_volume(*one, "/A", volume);
  write_block(*one, one->last_tid(), 0, 1);

  // The same bucket of the table, stored by two transactions that began alike.
  const Tid base = one->last_tid();
  EXPECT_EQ(other->sync(), base);
  const Volume at_base = find_volume(*one, "/A", base);
  const Bytes before = one->load(at_base.blktab, base)->data;
  const auto held_back = one->begin({});
  write_block(*other, base, 1, 2);
  held_back->store(at_base.blktab, base, before);
  if (server_merges) {
    EXPECT_THAT(held_back->vote(), testing::ElementsAre(at_base.blktab));
    held_back->finish();
  } else {
    EXPECT_THROW(held_back->vote(), Conflict);
  }
  EXPECT_EQ(read_block(one, 0), test::noise(1, 4096));
  EXPECT_EQ(read_block(one, 1), test::noise(2, 4096));

  // Blocks of others are merged by us, the same block is a conflict.
  write_block(*one, base, 2, 3);
  EXPECT_EQ(read_block(other, 2), test::noise(3, 4096));
  EXPECT_THROW(write_block(*other, base, 1, 9), CommitConflict);
  EXPECT_EQ(read_block(one, 1), test::noise(2, 4096));
}

void refuses(Storage& storage, const std::string& url) {
  const auto reader = open_zeo(url, OpenMode::kRead);
  EXPECT_THROW(reader->new_oid(), ReadOnly);
  EXPECT_THROW(reader->begin({}), ReadOnly);
  EXPECT_THROW(storage.begin({std::string(70000, 'x'), {}, {}}), Invalid);
  const auto transaction = storage.begin({});
  EXPECT_THROW(transaction->finish(), Invalid);
}

TEST_P(ZeoWrite, Commits_AreSeenConflictsFoundAndMerged) {
  merges_others_blocks(server_->url(), true);
  refuses(*storage_, server_->url());
  finds_conflicts(*storage_);
}

TEST_P(ZeoWrite, FirstCommit_IsSeenByOthersAndInTheFile) {
  sees_commits(*storage_, server_->url(), server_->file());
}

// Which message to meet, and what to do then.
struct Cut {
  const char* method;  // a call of the client, or nothing: the answer to the last one
  ZeoProxy::Verdict verdict;
  bool committed;
};

class ZeoCutLine : public testing::TestWithParam<Cut> {};

INSTANTIATE_TEST_SUITE_P(Phases, ZeoCutLine,
                         testing::Values(Cut{"storea", ZeoProxy::Verdict::kCut, false},
                                         Cut{"vote", ZeoProxy::Verdict::kCut, false},
                                         Cut{"vote", ZeoProxy::Verdict::kPassAndCut, false},
                                         Cut{"tpc_finish", ZeoProxy::Verdict::kCut, false},
                                         Cut{"tpc_finish", ZeoProxy::Verdict::kPassAndCut, true}),
                         [](const auto& info) {
                           return std::string(info.param.method) +
                                  (info.param.verdict == ZeoProxy::Verdict::kCut ? "_lost"
                                                                                 : "_arrived");
                         });

TEST_P(ZeoCutLine, Transaction_IsWhatTheCallerIsTold) {
  const auto server = test::ZeoServer::start({.conf = "msgpack true"});
  if (!server) GTEST_SKIP() << test::Python::kMissing;
  const Cut cut = GetParam();
  std::atomic<bool> armed = false;
  const std::string url = server->url();
  ZeoProxy proxy(url.substr(6, url.find('?') - 6),
                 [&](ZeoProxy::Direction direction, ByteView payload) {
                   if (direction != ZeoProxy::Direction::kToServer ||
                       !test::calls(payload, cut.method) || !armed.exchange(false)) {
                     return ZeoProxy::Verdict::kPass;
                   }
                   return cut.verdict;
                 });
  const auto storage = open_zeo(proxy.url(), OpenMode::kWrite);
  const Oid oid = storage->new_oid();
  const Tid first = commit(*storage, {{oid, kNoTid}}, "one");
  armed = true;
  Tid second;
  if (cut.committed) {
    second = commit(*storage, {{oid, first}}, "two");
  } else {
    EXPECT_THROW(commit(*storage, {{oid, first}}, "two"), Unavailable);
    EXPECT_EQ(storage->sync(), first);
    EXPECT_EQ(storage->load(oid, first)->data, record_of("one"));
    second = commit(*storage, {{oid, first}}, "two");
  }
  EXPECT_EQ(storage->last_tid(), second);
  EXPECT_EQ(storage->load(oid, second)->data, record_of("two"));
  EXPECT_EQ(open_filestorage(server->file(), OpenMode::kRead)->last_tid(), second);
  EXPECT_EQ(storage->history(oid, 9).size(), 2u);
}

TEST(ZeoServerDies, BetweenVoteAndFinish_NothingIsCommitted) {
  const auto server = test::ZeoServer::start({.conf = "msgpack true"});
  if (!server) GTEST_SKIP() << test::Python::kMissing;
  const auto storage = open_zeo(server->url(), OpenMode::kWrite);
  const Oid oid = storage->new_oid();
  const Tid first = commit(*storage, {{oid, kNoTid}}, "one");
  auto transaction = storage->begin({});
  transaction->store(oid, first, record_of("two"));
  transaction->vote();
  server->kill();
  server->start_again();
  // The server says at first the tid of the transaction that it lost.
  EXPECT_THROW(transaction->finish(), Unavailable);
  EXPECT_EQ(storage->sync(), first);
  EXPECT_EQ(storage->load(oid, storage->last_tid())->data, record_of("one"));
  const Tid second = commit(*storage, {{oid, first}}, "two");
  EXPECT_EQ(storage->load(oid, second)->data, record_of("two"));
}

TEST(ZeoServerDies, OidsOfTheOldServer_AreNotStoredInTheNew) {
  const auto server = test::ZeoServer::start({.conf = "msgpack true"});
  if (!server) GTEST_SKIP() << test::Python::kMissing;
  const auto storage = open_zeo(server->url(), OpenMode::kWrite);
  const Oid oid = storage->new_oid();
  server->kill();
  server->start_again();
  storage->sync();
  EXPECT_THROW(commit(*storage, {{oid, kNoTid}}, "one"), Unavailable);
  const Oid again = storage->new_oid();
  commit(*storage, {{again, kNoTid}}, "one");
}

TEST(ZeoClientResolves, ConflictsThatTheServerLeavesToUs_AreConflicts) {
  const auto server =
      test::ZeoServer::start({.conf = "msgpack true\nclient-conflict-resolution true"});
  if (!server) GTEST_SKIP() << test::Python::kMissing;
  const auto storage = open_zeo(server->url(), OpenMode::kWrite);
  finds_conflicts(*storage);
  merges_others_blocks(server->url(), false);
}

}  // namespace
}  // namespace zbig
