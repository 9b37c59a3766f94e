// SPDX-License-Identifier: BSD-3-Clause
#include <atomic>
#include <future>
#include <optional>
#include <thread>

#include <gtest/gtest.h>

#include "tests/support/python.h"
#include "tests/support/zeo_proxy.h"
#include "tests/support/zeo_server.h"
#include "zodb/error.h"
#include "zodb/filestorage/filestorage.h"
#include "zodb/zeo/zeo.h"

// A server that is killed and restarted in each phase of a commit, and one that hangs: what the
// caller is told is what the database has.

namespace zbig {
namespace {

using std::chrono::milliseconds;
using test::ZeoProxy;
using test::ZeoServer;
using Direction = ZeoProxy::Direction;
using Verdict = ZeoProxy::Verdict;

Bytes record_of(std::uint8_t number) {
  Bytes record;
  append(record,
         "\x80\x03"
         "cexample\nThing\n.\x80\x03K");
  record.push_back(static_cast<std::byte>(number & 0x7f));
  append(record, ".");
  return record;
}

// When the server is killed: before it gets the nth message of a kind, or when it sends the answer
// to it.
struct Moment {
  const char* name;
  const char* method;
  int nth;
  bool answered;
  bool committed;
};

constexpr Moment kMoments[] = {
    {"before tpc_begin", "tpc_begin", 1, false, false},
    {"after tpc_begin", "storea", 1, false, false},
    {"between stores", "storea", 2, false, false},
    {"before vote", "vote", 1, false, false},
    {"voted, and the answer lost", "vote", 1, true, false},
    {"after vote", "tpc_finish", 1, false, false},
    {"finished, and the answer lost", "tpc_finish", 1, true, true},
};

class Killer {
 public:
  explicit Killer(ZeoServer& server) : server_(server) {}

  void arm(const Moment* moment) {
    seen_ = 0;
    asked_ = false;
    moment_ = moment;
  }

  Verdict operator()(Direction direction, ByteView payload) {
    const Moment* moment = moment_;
    if (moment == nullptr) return Verdict::kPass;
    if (direction == Direction::kToServer) {
      if (!test::calls(payload, moment->method) || ++seen_ < moment->nth) return Verdict::kPass;
      if (!moment->answered) return strike();
      asked_ = true;
      return Verdict::kPass;
    }
    return asked_ && test::calls(payload, ".reply") ? strike() : Verdict::kPass;
  }

 private:
  Verdict strike() {
    moment_ = nullptr;
    server_.kill();
    server_.start_again();
    return Verdict::kCut;
  }

  ZeoServer& server_;
  std::atomic<const Moment*> moment_ = nullptr;
  std::atomic<int> seen_ = 0;
  std::atomic<bool> asked_ = false;
};

class ZeoFaults : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    server_ = ZeoServer::start({.environment = GetParam()});
    if (!server_) GTEST_SKIP() << test::Python::kMissing;
    killer_ = std::make_unique<Killer>(*server_);
    const std::string url = server_->url();
    proxy_ = std::make_unique<ZeoProxy>(
        url.substr(6, url.find('?') - 6),
        [this](Direction direction, ByteView payload) { return (*killer_)(direction, payload); });
    storage_ = open_zeo(proxy_->url() + "&wait_timeout=60", OpenMode::kWrite);
    oids_ = {storage_->new_oid(), storage_->new_oid()};
    tid_ = commit(kNoTid, 0);
  }

  Tid commit(Tid base, std::uint8_t number, std::string* mark = nullptr) {
    const auto transaction = storage_->begin({"me", "a commit", {}});
    for (const Oid oid : oids_) transaction->store(oid, base, record_of(number));
    transaction->vote();
    if (mark != nullptr) *mark = transaction->voted_mark();
    return transaction->finish();
  }
  Tid in_file() const { return open_filestorage(server_->file(), OpenMode::kRead)->last_tid(); }

  std::unique_ptr<ZeoServer> server_;
  std::unique_ptr<Killer> killer_;
  std::unique_ptr<ZeoProxy> proxy_;
  std::unique_ptr<Storage> storage_;
  std::vector<Oid> oids_;
  Tid tid_;
};

INSTANTIATE_TEST_SUITE_P(Servers, ZeoFaults, testing::Values("py3", "py2"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(ZeoFaults, ServerKilledInAnyPhase_OutcomeIsTheTrueOne) {
  std::uint8_t number = 1;
  for (const Moment& moment : kMoments) {
    SCOPED_TRACE(moment.name);
    killer_->arm(&moment);
    std::optional<Tid> told;
    std::string mark;
    try {
      told = commit(tid_, number, &mark);
    } catch (const Unavailable& error) {
      EXPECT_FALSE(moment.committed) << error.what();
    }
    EXPECT_EQ(told.has_value(), moment.committed);
    EXPECT_EQ(storage_->sync(), in_file());
    EXPECT_EQ(in_file(), told.value_or(tid_));
    // As another process would find it.
    if (!mark.empty()) {
      const auto other = open_zeo(server_->url(), OpenMode::kWrite);
      EXPECT_EQ(other->find_voted(mark), told);
    }
    if (!told) told = commit(tid_, number);
    tid_ = *told;
    ++number;
    for (const Oid oid : oids_) {
      const auto record = storage_->load(oid, tid_);
      ASSERT_TRUE(record);
      EXPECT_EQ(record->serial, tid_);
      EXPECT_EQ(record->data, record_of(static_cast<std::uint8_t>(number - 1)));
    }
  }
  EXPECT_EQ(storage_->history(oids_[0], 99).size(), 1 + std::size(kMoments));
}

TEST_P(ZeoFaults, MarkOfATransaction_IsOnlyItsOwn) {
  std::string mark;
  const Tid second = commit(tid_, 1, &mark);
  EXPECT_EQ(storage_->find_voted(mark), second);
  // The same again, from another revision.
  const Tid third = commit(second, 1);
  EXPECT_EQ(storage_->find_voted(mark), second);
  // One that was voted and given up, and then others did what looks like it.
  std::string lost;
  {
    const auto transaction = storage_->begin({"me", "a commit", {}});
    for (const Oid oid : oids_) transaction->store(oid, third, record_of(2));
    transaction->vote();
    lost = transaction->voted_mark();
  }
  EXPECT_EQ(storage_->find_voted(lost), std::nullopt);
  {
    const auto transaction = storage_->begin({"me", "a commit", {}});
    transaction->store(oids_[0], third, record_of(2));
    transaction->vote();
    transaction->finish();
  }
  EXPECT_EQ(storage_->find_voted(lost), std::nullopt);
  EXPECT_EQ(storage_->find_voted("no mark"), std::nullopt);
  EXPECT_EQ(storage_->find_voted(mark), second);
}

TEST_P(ZeoFaults, ServerThatHangs_IsWaitedFor) {
  const auto other = open_zeo(proxy_->url() + "&wait_timeout=60", OpenMode::kWrite);
  EXPECT_EQ(other->sync(), tid_);
  server_->freeze();
  auto loaded = std::async(std::launch::async, [&] { return other->load(oids_[0], tid_)->data; });
  auto committed = std::async(std::launch::async, [&] { return commit(tid_, 1); });
  EXPECT_EQ(loaded.wait_for(milliseconds(3000)), std::future_status::timeout);
  EXPECT_EQ(committed.wait_for(milliseconds(0)), std::future_status::timeout);
  server_->thaw();
  EXPECT_EQ(loaded.get(), record_of(0));
  const Tid tid = committed.get();
  EXPECT_EQ(other->sync(), tid);
}

}  // namespace
}  // namespace zbig
