// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/paths.h"
#include "tests/support/python.h"
#include "tests/support/zeo_server.h"
#include "zodb/error.h"
#include "zodb/filestorage/filestorage.h"
#include "zodb/zeo/zeo.h"

// Reading through a real ZEO server what the originals wrote: everything must be as the FileStorage
// says that the server serves.

namespace zbig {
namespace {

struct Case {
  const char* environment;
  const char* conf;
  const char* data;
  bool unix_socket;
};

class ZeoRead : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const Case& c = GetParam();
    server_ = test::ZeoServer::start(
        {.environment = c.environment,
         .conf = c.conf,
         .data = test::repository(std::string("tests/data/original/") + c.data + "/Data.fs"),
         .unix_socket = c.unix_socket});
    if (!server_) GTEST_SKIP() << test::Python::kMissing;
    zeo_ = open_zeo(server_->url(), OpenMode::kRead);
    file_ = open_filestorage(server_->file(), OpenMode::kRead);
  }

  void same_transactions_and_records();
  void same_history();
  void same_with_a_small_cache();

  std::unique_ptr<test::ZeoServer> server_;
  std::unique_ptr<Storage> zeo_;
  std::unique_ptr<Storage> file_;
};

INSTANTIATE_TEST_SUITE_P(Servers, ZeoRead,
                         testing::Values(Case{"py3", "", "py3-undo", false},
                                         Case{"py3", "msgpack true", "py3-mixed", false},
                                         Case{"py3", "msgpack true", "py3-packed", true},
                                         Case{"py3", "", "py3-zblk1", true},
                                         Case{"py2", "", "py2-undo", false},
                                         Case{"py2", "", "py2-mixed", true}),
                         [](const auto& info) {
                           std::string name = info.param.data;
                           std::ranges::replace(name, '-', '_');
                           return name + (info.param.conf[0] != 0 ? "_msgpack" : "_pickle");
                         });

std::vector<TransactionInfo> all(const Storage& storage, bool backwards, Tid first = kNoTid,
                                 Tid last = kMaxTid) {
  std::vector<TransactionInfo> out;
  const auto cursor = storage.transactions(first, last, backwards);
  while (auto info = cursor->next()) out.push_back(std::move(*info));
  return out;
}

void expect_same(const std::vector<TransactionInfo>& left,
                 const std::vector<TransactionInfo>& right) {
  ASSERT_EQ(left.size(), right.size());
  for (std::size_t i = 0; i < left.size(); ++i) {
    EXPECT_EQ(left[i].tid, right[i].tid);
    EXPECT_EQ(left[i].status, right[i].status);
    EXPECT_EQ(left[i].user, right[i].user);
    EXPECT_EQ(left[i].description, right[i].description);
    ASSERT_EQ(left[i].stored.size(), right[i].stored.size());
    for (std::size_t j = 0; j < left[i].stored.size(); ++j) {
      EXPECT_EQ(left[i].stored[j].oid, right[i].stored[j].oid);
      EXPECT_EQ(left[i].stored[j].size, right[i].stored[j].size);
    }
  }
}

TEST_P(ZeoRead, Everything_IsAsTheFileSays) {
  same_transactions_and_records();
  same_history();
  same_with_a_small_cache();
}

void ZeoRead::same_transactions_and_records() {
  EXPECT_EQ(zeo_->last_tid(), file_->last_tid());
  EXPECT_EQ(zeo_->sync(), file_->last_tid());

  const auto transactions = all(*file_, false);
  expect_same(all(*zeo_, false), transactions);
  expect_same(all(*zeo_, true), all(*file_, true));
  const Tid middle = transactions[transactions.size() / 2].tid;
  expect_same(all(*zeo_, false, middle, middle), all(*file_, false, middle, middle));
  expect_same(all(*zeo_, true, Tid{middle.value + 1}), all(*file_, true, Tid{middle.value + 1}));

  std::set<Oid> seen;
  for (const auto& transaction : transactions) {
    for (const auto& stored : transaction.stored) seen.insert(stored.oid);
  }
  seen.insert(Oid{0x777777});
  const std::vector<Oid> oids(seen.begin(), seen.end());
  for (const auto& transaction : transactions) {
    // Of what was packed away, the file says so, and the server that it never existed.
    if (transaction.status == 'p' && transaction.tid != transactions.back().tid) continue;
    for (const Tid at : {transaction.tid, Tid{transaction.tid.value + 1}}) {
      std::vector<std::optional<Record>> theirs(oids.size());
      std::vector<std::optional<Record>> ours(oids.size());
      std::vector<std::optional<RecordRef>> located(oids.size());
      file_->load(oids, at, Storage::kMaxLoad, theirs);
      zeo_->load(oids, at, Storage::kMaxLoad, ours);
      zeo_->locate(oids, at, located);
      for (std::size_t i = 0; i < oids.size(); ++i) {
        ASSERT_EQ(ours[i].has_value(), theirs[i].has_value()) << oids[i].hex() << at.hex();
        ASSERT_EQ(located[i].has_value(), theirs[i].has_value());
        if (!ours[i]) continue;
        EXPECT_EQ(ours[i]->serial, theirs[i]->serial);
        EXPECT_EQ(ours[i]->data, theirs[i]->data);
        EXPECT_EQ(located[i]->serial, theirs[i]->serial);
        ASSERT_EQ(located[i]->size, theirs[i]->data.size());
        Bytes tail(located[i]->size / 2);
        zeo_->read(*located[i], located[i]->size - tail.size(), tail);
        EXPECT_TRUE(std::ranges::equal(tail, std::span(theirs[i]->data).last(tail.size())));
      }
    }
  }
  EXPECT_EQ(zeo_->changed_oids(kNoTid, zeo_->last_tid()),
            file_->changed_oids(kNoTid, zeo_->last_tid()));
}

void ZeoRead::same_history() {
  for (const Oid oid : {Oid{0}, Oid{1}, Oid{2}, Oid{0x777777}}) {
    const auto ours = zeo_->history(oid, 3);
    const auto theirs = file_->history(oid, 3);
    ASSERT_EQ(ours.size(), theirs.size()) << oid.hex();
    for (std::size_t i = 0; i < ours.size(); ++i) {
      EXPECT_EQ(ours[i].serial, theirs[i].serial);
      // The server says 0 of a revision that an undo brought back.
      EXPECT_TRUE(ours[i].size == 0 || ours[i].size == theirs[i].size);
      EXPECT_EQ(ours[i].user, theirs[i].user);
      EXPECT_EQ(ours[i].description, theirs[i].description);
    }
  }
}

void ZeoRead::same_with_a_small_cache() {
  const auto tiny = open_zeo(server_->url() + "&cache_size=4KB", OpenMode::kRead);
  const Tid head = tiny->last_tid();
  std::vector<Oid> oids = file_->changed_oids(kNoTid, head);
  std::vector<std::optional<RecordRef>> located(oids.size());
  tiny->locate(oids, head, located);
  for (std::size_t i = 0; i < oids.size(); ++i) {
    const auto theirs = file_->load(oids[i], head);
    ASSERT_EQ(located[i].has_value(), theirs.has_value());
    if (!theirs) continue;
    Bytes bytes(located[i]->size);
    tiny->read(*located[i], 0, bytes);
    EXPECT_EQ(bytes, theirs->data);
  }
}

TEST(ZeoServers, UnknownStorage_IsSaidAtOnce) {
  const auto server = test::ZeoServer::start({});
  if (!server) GTEST_SKIP() << test::Python::kMissing;
  std::string url = server->url();
  url.replace(url.find("storage=1"), 9, "storage=other");
  const auto begin = std::chrono::steady_clock::now();
  try {
    open_zeo(url, OpenMode::kRead)->sync();
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("unknown storage: other"));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

TEST(ZeoServers, EmptyDatabase_HasNothing) {
  const auto server = test::ZeoServer::start({});
  if (!server) GTEST_SKIP() << test::Python::kMissing;
  const auto zeo = open_zeo(server->url(), OpenMode::kRead);
  EXPECT_EQ(zeo->sync(), kNoTid);
  EXPECT_EQ(zeo->last_tid(), kNoTid);
  EXPECT_FALSE(zeo->locate(kRootOid, kMaxTid));
  EXPECT_TRUE(all(*zeo, false).empty());
  EXPECT_TRUE(all(*zeo, true).empty());
  EXPECT_TRUE(zeo->history(kRootOid, 5).empty());
}

TEST(ZeoServers, NobodyThere_IsUnavailableAfterTheTimeout) {
  const auto zeo = open_zeo("zeo:///nonexistent/zeo.sock?wait_timeout=1", OpenMode::kRead);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THROW(zeo->sync(), Unavailable);
  const auto took = std::chrono::steady_clock::now() - begin;
  EXPECT_GE(took, std::chrono::milliseconds(900));
  EXPECT_LT(took, std::chrono::seconds(3));
}

}  // namespace
}  // namespace zbig
