// SPDX-License-Identifier: BSD-3-Clause
#include <array>
#include <atomic>
#include <filesystem>
#include <map>
#include <mutex>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fake_zeo.h"
#include "tests/support/python.h"
#include "tests/support/zeo_proxy.h"
#include "tests/support/zeo_server.h"
#include "zodb/error.h"
#include "zodb/zeo/zeo.h"

// Lines that break and heal, what was missed meanwhile, and how calls share a line.

namespace zbig {
namespace {

using std::chrono::milliseconds;
using test::ZeoProxy;
using test::ZeoServer;
using Clock = std::chrono::steady_clock;

Bytes record_of(int number) {
  Bytes record;
  append(record, std::string("\x80\x03"
                             "cexample\nThing\n.\x80\x03") +
                     "K");
  record.push_back(static_cast<std::byte>(number & 0x7f));
  append(record, ".");
  return record;
}

Tid store(Storage& storage, Oid oid, Tid base, int number) {
  const auto transaction = storage.begin({});
  transaction->store(oid, base, record_of(number));
  transaction->vote();
  return transaction->finish();
}

std::string address(const ZeoServer& server) {
  const std::string& url = server.url();
  return url.substr(6, url.find('?') - 6);
}

class ZeoReconnect : public testing::Test {
 protected:
  void SetUp() override {
    server_ = ZeoServer::start({.conf = "msgpack true"});
    if (!server_) GTEST_SKIP() << test::Python::kMissing;
    proxy_ = std::make_unique<ZeoProxy>(address(*server_), nullptr);
    writer_ = open_zeo(server_->url(), OpenMode::kWrite);
    reader_ = open_zeo(proxy_->url() + "&wait_timeout=20", OpenMode::kRead);
    oid_ = writer_->new_oid();
    other_ = writer_->new_oid();
    store(*writer_, other_, kNoTid, 99);
    tid_ = first_ = store(*writer_, oid_, kNoTid, 0);
    EXPECT_EQ(reader_->sync(), tid_);
    EXPECT_EQ(reader_->load(oid_, tid_)->data, record_of(0));
    EXPECT_EQ(reader_->load(other_, tid_)->data, record_of(99));
  }

  void misses(int transactions) {
    proxy_->refuse(true);
    proxy_->cut();
    for (int i = 1; i <= transactions; ++i) tid_ = store(*writer_, oid_, tid_, i);
    proxy_->refuse(false);
  }

  void knows_everything(int transactions) {
    EXPECT_EQ(reader_->sync(), tid_);
    EXPECT_EQ(reader_->load(oid_, tid_)->data, record_of(transactions));
    EXPECT_EQ(reader_->load(oid_, first_)->data, record_of(0));
    EXPECT_EQ(reader_->load(other_, tid_)->data, record_of(99));
    EXPECT_EQ(reader_->changed_oids(first_, tid_), std::vector<Oid>{oid_});
  }

  std::unique_ptr<ZeoServer> server_;
  std::unique_ptr<ZeoProxy> proxy_;
  std::unique_ptr<Storage> writer_;
  std::unique_ptr<Storage> reader_;
  Oid oid_;
  Oid other_;
  Tid first_;
  Tid tid_;
};

TEST_F(ZeoReconnect, LineThatHeals_BringsWhatWasMissed) {
  std::atomic<Tid> told{kNoTid};
  const auto subscription = reader_->subscribe([&](Tid tid, std::span<const Oid>) { told = tid; });
  misses(3);
  knows_everything(3);
  EXPECT_EQ(told.load(), tid_);
  // More than the server remembers: then everything is looked at anew.
  misses(120);
  knows_everything(120);
  EXPECT_EQ(told.load(), tid_);
  // And then it goes on as before.
  tid_ = store(*writer_, oid_, tid_, 121);
  knows_everything(121);
}

TEST_F(ZeoReconnect, ReadersDuringARestart_GetTheirDataLate) {
  std::atomic<int> loaded = 0;
  const Tid head = tid_;
  std::jthread thread([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      // Not from the cache: a storage of its own.
      const auto fresh = open_zeo(proxy_->url(), OpenMode::kRead);
      EXPECT_EQ(fresh->load(oid_, head)->data, record_of(0));
      ++loaded;
    }
  });
  while (loaded < 3) std::this_thread::sleep_for(milliseconds(5));
  server_->kill();
  std::this_thread::sleep_for(milliseconds(300));
  server_->start_again();
  const int before = loaded;
  const auto deadline = Clock::now() + std::chrono::seconds(20);
  while (loaded < before + 3 && Clock::now() < deadline) {
    std::this_thread::sleep_for(milliseconds(5));
  }
  EXPECT_GE(loaded, before + 3);
}

TEST_F(ZeoReconnect, FrozenServer_IsUnavailableInTimeAndFineAfterwards) {
  const auto impatient = open_zeo(server_->url() + "&wait_timeout=1", OpenMode::kWrite);
  EXPECT_EQ(impatient->sync(), tid_);
  server_->freeze();
  const auto begin = Clock::now();
  EXPECT_THROW(impatient->sync(), Unavailable);
  EXPECT_THROW(impatient->load(oid_, tid_), Unavailable);
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(6));
  server_->thaw();
  EXPECT_EQ(reader_->sync(), tid_);
  EXPECT_EQ(open_zeo(server_->url(), OpenMode::kRead)->load(oid_, tid_)->data, record_of(0));
  EXPECT_EQ(impatient->load(oid_, tid_)->data, record_of(0));
}

TEST_F(ZeoReconnect, OlderDatabase_IsRefusedForGood) {
  const std::string older = server_->folder() + "/older.fs";
  std::filesystem::copy_file(server_->file(), older);
  const Tid now = store(*writer_, oid_, tid_, 1);
  EXPECT_EQ(reader_->sync(), now);
  server_->stop();
  std::filesystem::rename(older, server_->file());
  std::filesystem::remove(server_->file() + ".index");
  server_->start_again();
  EXPECT_THROW(reader_->sync(), Corrupt);
  EXPECT_THROW(reader_->load(oid_, now), Corrupt);
  // Even when it has gone on, differently.
  const auto fresh = open_zeo(server_->url(), OpenMode::kWrite);
  EXPECT_EQ(fresh->sync(), tid_);
  store(*fresh, oid_, tid_, 2);
  EXPECT_THROW(writer_->sync(), Corrupt);
  EXPECT_THROW(store(*writer_, oid_, now, 3), Corrupt);
  try {
    reader_->sync();
    FAIL();
  } catch (const Corrupt& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("transaction " + now.hex() + " is not there"));
  }
}

// A writer stores the same number in two objects, again and again; readers must find what each tid
// has, at the head and behind it, while the line breaks now and then.
TEST_F(ZeoReconnect, ReadersBesideAWriter_SeeWholeTransactionsOnly) {
  std::mutex mutex;
  std::map<Tid, int> written;  // guarded by mutex
  std::atomic<bool> done = false;
  {
    const auto transaction = writer_->begin({});
    transaction->store(oid_, tid_, record_of(0));
    transaction->store(other_, writer_->load(other_, tid_)->serial, record_of(0));
    transaction->vote();
    first_ = tid_ = transaction->finish();
    written[tid_] = 0;
  }
  const auto number_at = [&](Tid tid) -> std::optional<int> {
    const std::lock_guard lock(mutex);
    const auto found = written.find(tid);
    return found == written.end() ? std::nullopt : std::optional(found->second);
  };
  std::atomic<int> looks = 0;
  std::vector<std::jthread> readers;
  const auto read = [&](const Storage& storage, Tid at) {
    std::array<std::optional<Record>, 2> got;
    storage.load(std::array{oid_, other_}, at, Storage::kMaxLoad, got);
    ASSERT_TRUE(got[0] && got[1]);
    EXPECT_EQ(got[0]->data, got[1]->data) << at.hex();
    EXPECT_EQ(got[0]->serial, at);
    EXPECT_EQ(got[1]->serial, at);
    const auto number = number_at(at);
    EXPECT_TRUE(!number || got[0]->data == record_of(*number));
    ++looks;
  };
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&, i] {
      std::unique_ptr<Storage> own;
      if (i == 2) own = open_zeo(proxy_->url() + "&cache_size=1KB", OpenMode::kRead);
      Storage& storage = own ? *own : *reader_;
      storage.sync();
      Tid behind = first_;
      while (!done) {
        const Tid head = i == 1 ? storage.sync() : storage.last_tid();
        if (head < first_) continue;
        read(storage, head);
        read(storage, behind);
        if (looks % 7 == 0) behind = head;
      }
    });
  }
  for (int i = 1; i <= 150; ++i) {
    const auto transaction = writer_->begin({});
    transaction->store(oid_, tid_, record_of(i));
    transaction->store(other_, tid_, record_of(i));
    transaction->vote();
    tid_ = transaction->finish();
    const std::lock_guard lock(mutex);
    written[tid_] = i;
    if (i % 50 == 0) proxy_->cut();
  }
  EXPECT_EQ(reader_->sync(), tid_);
  done = true;
  readers.clear();
  EXPECT_GT(looks, 100);
}

TEST(ZeoLoads, OfTwoThreadsForOneObject_ShareACall) {
  std::atomic<int> calls = 0;
  test::FakeZeo server(test::frame(as_bytes("M5")), [&](const zeo::Message& call) {
    if (call.name() == "getInvalidations") {
      return test::reply(call.id(), test::packed_list({test::packed_id(9), test::packed_list({})}));
    }
    if (call.name() != "loadBefore") return Bytes();
    ++calls;
    std::this_thread::sleep_for(milliseconds(200));
    return test::reply(call.id(), test::packed_list({test::packed_bytes("data"), test::packed_id(5),
                                                     test::kPackedNone}));
  });
  const auto storage = open_zeo(server.url(), OpenMode::kRead);
  storage->sync();
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] { EXPECT_EQ(storage->load(Oid{1}, Tid{9})->serial, Tid{5}); });
    }
  }
  EXPECT_EQ(calls, 1);
}

// A fake server of objects whose data are their oids.
Bytes answer_up_to_date(const zeo::Message& call) {
  if (call.name() != "getInvalidations") return {};
  return test::reply(call.id(), test::packed_list({test::packed_id(9), test::packed_list({})}));
}
Bytes answer_with_own_oid(const zeo::Message& call) {
  const Bytes oid = test::packed_id(*zeo::id_of((*zeo::sequence(call.args()))[0]));
  return test::reply(call.id(), test::packed_list({oid, test::packed_id(5), test::kPackedNone}));
}
void load_own_oids(const Storage& storage, std::size_t count) {
  std::vector<Oid> oids;
  for (std::size_t i = 0; i < count; ++i) oids.push_back(Oid{i + 1});
  std::vector<std::optional<Record>> records(count);
  storage.load(oids, Tid{9}, Storage::kMaxLoad, records);
  for (std::size_t i = 0; i < count; ++i) {
    ASSERT_TRUE(records[i]);
    EXPECT_EQ(get_be<8>(records[i]->data.data()), oids[i].value);
  }
}

TEST(ZeoLoads, OfABatch_AreAllAskedForBeforeTheFirstAnswer) {
  // Answers when it has been asked for all, and the last first.
  constexpr std::size_t kObjects = 100;
  std::vector<Bytes> answers;
  test::FakeZeo server(test::frame(as_bytes("M5")), [&](const zeo::Message& call) {
    if (call.name() != "loadBefore") return answer_up_to_date(call);
    answers.push_back(answer_with_own_oid(call));
    Bytes out = test::server_call("info", test::packed_list({}));
    if (answers.size() < kObjects) return out;
    for (std::size_t i = kObjects; i-- > 0;) append(out, ByteView(answers[i]));
    return out;
  });
  const auto storage = open_zeo(server.url(), OpenMode::kRead);
  storage->sync();
  load_own_oids(*storage, kObjects);
}

TEST(ZeoLoads, OfABatchThatLostItsLine_AreAllAskedForAgainAtOnce) {
  constexpr std::size_t kObjects = 100;
  std::vector<Bytes> answers;
  int connections = 0;
  test::FakeZeo* line = nullptr;
  test::FakeZeo server(test::frame(as_bytes("M5")), [&](const zeo::Message& call) {
    if (call.name() == "register") ++connections;
    if (call.name() != "loadBefore") return answer_up_to_date(call);
    answers.push_back(answer_with_own_oid(call));
    Bytes out = test::server_call("info", test::packed_list({}));
    if (answers.size() < kObjects) return out;
    if (connections == 1) {
      answers.clear();
      line->hang_up();
      return out;
    }
    for (const Bytes& answer : answers) append(out, ByteView(answer));
    return out;
  });
  line = &server;
  const auto storage = open_zeo(server.url(), OpenMode::kRead);
  storage->sync();
  load_own_oids(*storage, kObjects);
  EXPECT_EQ(connections, 2);
}

}  // namespace
}  // namespace zbig
