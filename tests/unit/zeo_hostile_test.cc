// SPDX-License-Identifier: BSD-3-Clause
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fake_zeo.h"
#include "zodb/error.h"
#include "zodb/zeo/zeo.h"

// A server that answers wrongly: a clear error in time, whatever it says. And one that says things
// in an order that is right, and rare.

namespace zbig {
namespace {

using test::FakeZeo;
using test::kPackedNone;
using test::packed_bytes;
using test::packed_id;
using test::packed_list;
using zeo::Message;

constexpr Tid kOne{0x0405e70000000000};
constexpr Tid kTwo{0x0405e70000000001};
constexpr Tid kThree{0x0405e70000000002};

Bytes greeting(std::string_view text = "M5") { return test::frame(as_bytes(text)); }

// What becomes of the first call.
std::optional<ErrorCode> outcome(FakeZeo& server, std::string* sentence = nullptr) {
  const auto begin = std::chrono::steady_clock::now();
  std::optional<ErrorCode> code;
  try {
    open_zeo(server.url(), OpenMode::kRead)->sync();
  } catch (const Error& error) {
    code = error.code();
    if (sentence != nullptr) *sentence = error.what();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  return code;
}

TEST(ZeoHostile, WrongGreetings_AreErrorsAtOnceOrInTime) {
  const std::pair<Bytes, ErrorCode> cases[] = {
      {Bytes(), ErrorCode::kUnavailable},  // says nothing
      {Bytes{std::byte{0}, std::byte{0}}, ErrorCode::kUnavailable},
      {Bytes(4, std::byte{0xff}), ErrorCode::kCorrupt},
      {Bytes(4), ErrorCode::kCorrupt},
      {Bytes(as_bytes("HTTP/1.1 400 Bad Request").begin(),
             as_bytes("HTTP/1.1 400 Bad Request").begin() + 24),
       ErrorCode::kCorrupt},
      {greeting("M4"), ErrorCode::kUnsupported},
      {greeting("Z310"), ErrorCode::kUnsupported},
      {greeting("X5"), ErrorCode::kCorrupt},
      {greeting(std::string(5000, 'M')), ErrorCode::kCorrupt},
  };
  for (const auto& [bytes, code] : cases) {
    FakeZeo server(bytes);
    EXPECT_EQ(outcome(server), code) << as_text(bytes);
  }
}

TEST(ZeoHostile, WrongAnswersAtTheStart_AreCorrupt) {
  const auto wrong = [](std::string_view method, const Bytes& value) {
    return [=](const Message& call) {
      return call.name() == method ? test::reply(call.id(), value) : Bytes();
    };
  };
  const FakeZeo::Answer cases[] = {
      wrong("register", packed_bytes("1234567")),
      wrong("register", packed_list({})),
      wrong("getInvalidations", packed_id(1)),
      wrong("getInvalidations", packed_list({packed_id(1)})),
      [](const Message& call) { return test::reply(call.id() + 100, kPackedNone); },
      [](const Message&) { return test::frame(as_bytes("\xc1")); },
      [](const Message&) { return test::frame(as_bytes("\x94\xdd\xff\xff\xff\xff")); },
      [](const Message&) { return Bytes(4, std::byte{0xff}); },
      [](const Message&) {
        return test::server_call("invalidateTransaction", packed_list({packed_id(1)}));
      },
  };
  for (const auto& answer : cases) {
    FakeZeo server(greeting(), answer);
    std::string sentence;
    EXPECT_EQ(outcome(server, &sentence), ErrorCode::kCorrupt) << sentence;
    EXPECT_THAT(sentence, testing::HasSubstr("ZEO server /tmp/zbig-fake-"));
  }
}

TEST(ZeoHostile, HalfAMessage_IsUnavailableInTime) {
  FakeZeo server(greeting(), [](const Message& call) {
    Bytes half = test::reply(call.id(), packed_id(1));
    half.resize(half.size() / 2);
    return half;
  });
  EXPECT_EQ(outcome(server), ErrorCode::kUnavailable);
}

TEST(ZeoHostile, CallsThatNobodyKnows_AreIgnored) {
  FakeZeo server(greeting(), [](const Message& call) {
    Bytes out = test::server_call("gossip", packed_list({packed_bytes("x")}));
    append(out, ByteView(test::reply(call.id(),
                                     call.name() == "register" ? packed_id(0) : kPackedNone)));
    return out;
  });
  EXPECT_EQ(outcome(server), std::nullopt);
}

TEST(ZeoHostile, WrongRecords_AreCorruptAndNothingElse) {
  Bytes answer;
  FakeZeo server(greeting(), [&](const Message& call) {
    if (call.name() == "getInvalidations") {
      return test::reply(call.id(), packed_list({packed_id(kTwo.value), packed_list({})}));
    }
    return call.name() == "loadBefore" ? test::reply(call.id(), answer) : Bytes();
  });
  const auto storage = open_zeo(server.url(), OpenMode::kRead);
  EXPECT_EQ(storage->sync(), kTwo);
  const Bytes data = packed_bytes("data");
  const Bytes cases[] = {
      data,
      packed_list({data}),
      packed_list({packed_list({}), packed_id(kOne.value), kPackedNone}),
      packed_list({data, packed_bytes("x"), kPackedNone}),
      packed_list({data, packed_id(kThree.value), kPackedNone}),          // from the future
      packed_list({data, packed_id(kOne.value), packed_id(kTwo.value)}),  // ended by then
      packed_list({data, packed_id(kOne.value), packed_bytes("y")}),
  };
  for (const Bytes& wrong : cases) {
    answer = wrong;
    EXPECT_THROW(storage->load(Oid{1}, kTwo), Corrupt);
  }
  answer = packed_list({data, packed_id(kOne.value), kPackedNone});
  EXPECT_EQ(storage->load(Oid{1}, kTwo)->serial, kOne);
}

// A database of two transactions, the second of which the server tells late, or early.
struct Order {
  Bytes loaded;
  Tid head = kOne;

  Bytes answer(const Message& call) const {
    if (call.name() == "getInvalidations") {
      return test::reply(call.id(), packed_list({packed_id(head.value), packed_list({})}));
    }
    return call.name() == "loadBefore" ? test::reply(call.id(), loaded) : Bytes();
  }
};

Bytes invalidation(Tid tid, const std::vector<Bytes>& oids) {
  return test::server_call("invalidateTransaction",
                           packed_list({packed_id(tid.value), packed_list(oids)}));
}

TEST(ZeoOrder, InvalidationBeforeTheAnswerToRegister_IsAppliedAfterIt) {
  const Order order;
  FakeZeo server(greeting(), [&](const Message& call) {
    if (call.name() != "register") return order.answer(call);
    Bytes out = invalidation(kOne, {packed_id(1)});  // part of what is caught up with
    append(out, ByteView(invalidation(kTwo, {packed_id(1)})));
    append(out, ByteView(test::reply(call.id(), packed_id(kOne.value))));
    return out;
  });
  const auto storage = open_zeo(server.url(), OpenMode::kRead);
  EXPECT_EQ(storage->sync(), kTwo);
  EXPECT_EQ(storage->changed_oids(kOne, kTwo), std::vector<Oid>{Oid{1}});
}

TEST(ZeoOrder, PhantomTidOfRegister_IsNotTheHead) {
  const Order order;
  FakeZeo server(greeting(), [&](const Message& call) {
    return call.name() == "register" ? test::reply(call.id(), packed_id(kThree.value))
                                     : order.answer(call);
  });
  EXPECT_EQ(open_zeo(server.url(), OpenMode::kRead)->sync(), kOne);
}

TEST(ZeoOrder, RecordFromTheFuture_DoesNotMoveTheHead) {
  Order order;
  FakeZeo server(greeting(), [&](const Message& call) { return order.answer(call); });
  const auto storage = open_zeo(server.url(), OpenMode::kRead);
  EXPECT_EQ(storage->sync(), kOne);
  // The reply knows already of the transaction that the server has not told.
  order.loaded = packed_list({packed_bytes("old"), packed_id(kOne.value), packed_id(kTwo.value)});
  EXPECT_EQ(storage->load(Oid{1}, kOne)->serial, kOne);
  EXPECT_EQ(storage->last_tid(), kOne);
  server.send(invalidation(kTwo, {packed_id(1), packed_id(1)}));
  order.loaded = packed_list({packed_bytes("new"), packed_id(kTwo.value), kPackedNone});
  EXPECT_EQ(storage->sync(), kTwo);
  EXPECT_EQ(storage->load(Oid{1}, kTwo)->serial, kTwo);
  EXPECT_EQ(storage->load(Oid{1}, kOne)->serial, kOne);  // from the cache
}

TEST(ZeoOrder, CachedRecord_IsNotServedPastAnInvalidation) {
  Order order;
  FakeZeo server(greeting(), [&](const Message& call) { return order.answer(call); });
  const auto storage = open_zeo(server.url(), OpenMode::kRead);
  storage->sync();
  order.loaded = packed_list({packed_bytes("old"), packed_id(kOne.value), kPackedNone});
  EXPECT_EQ(storage->load(Oid{1}, kOne)->serial, kOne);
  EXPECT_EQ(storage->load(Oid{2}, kOne)->serial, kOne);
  server.send(invalidation(kTwo, {packed_id(1)}));
  storage->sync();
  order.loaded = packed_list({packed_bytes("new"), packed_id(kTwo.value), kPackedNone});
  EXPECT_EQ(storage->load(Oid{1}, kTwo)->serial, kTwo);
  EXPECT_EQ(storage->load(Oid{2}, kTwo)->serial, kOne);  // still true
  EXPECT_EQ(storage->load(Oid{1}, kOne)->serial, kOne);
}

TEST(ZeoOrder, EmptyInvalidation_IsLookedUpBeforeTheHeadMoves) {
  Order order;
  FakeZeo server(greeting(), [&](const Message& call) {
    if (call.name() == "iterator_start" || call.name() == "iterator_record_start") {
      return test::reply(call.id(), Bytes{std::byte{7}});
    }
    if (call.name() == "iterator_next") {
      return test::reply(call.id(),
                         packed_list({packed_id(kTwo.value), packed_bytes(" "), packed_bytes(""),
                                      packed_bytes(""), Bytes{std::byte{0x80}}}));
    }
    if (call.name() == "iterator_record_next") {
      static int asked = 0;
      if (asked++ > 0) return test::reply(call.id(), kPackedNone);
      return test::reply(
          call.id(), packed_list({packed_id(1), packed_id(kTwo.value), kPackedNone, kPackedNone}));
    }
    return order.answer(call);
  });
  const auto storage = open_zeo(server.url(), OpenMode::kRead);
  storage->sync();
  order.loaded = packed_list({packed_bytes("old"), packed_id(kOne.value), kPackedNone});
  EXPECT_EQ(storage->load(Oid{1}, kOne)->serial, kOne);
  server.send(invalidation(kTwo, {}));
  EXPECT_EQ(storage->sync(), kTwo);
  EXPECT_EQ(storage->changed_oids(kOne, kTwo), std::vector<Oid>{Oid{1}});
  order.loaded = kPackedNone;
  EXPECT_FALSE(storage->load(Oid{1}, kTwo));  // not from the cache
}

}  // namespace
}  // namespace zbig
