// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>

#include <gtest/gtest.h>

#include "tests/support/format_page.h"
#include "zodb/error.h"
#include "zodb/zeo/frame.h"
#include "zodb/zeo/message.h"
#include "zodb/zeo/msgpack.h"

// The frames of docs/formats/zeo.md in both encodings, and input that no server would send.

namespace zbig::zeo {
namespace {

constexpr Tid kInit{0x03f58e0100000000};

Frame frame_of(ByteView payload) {
  auto bytes = std::make_shared<std::byte[]>(payload.size());
  std::copy(payload.begin(), payload.end(), bytes.get());
  return {std::move(bytes), payload.size()};
}

class ZeoMessage : public testing::TestWithParam<Encoding> {
 protected:
  std::string name_in_page(const std::string& name) const {
    return name + (GetParam() == Encoding::kMsgpack ? "-msgpack" : "-pickle");
  }
  const Bytes& bytes(const std::string& name) const { return page_.at(name_in_page(name)); }
  Message message(const std::string& name) const {
    return Message::decode(GetParam(), frame_of(ByteView(bytes(name)).subspan(4)));
  }

 private:
  std::map<std::string, Bytes> page_ = test::hex_examples("zeo.md");
};

INSTANTIATE_TEST_SUITE_P(Encodings, ZeoMessage,
                         testing::Values(Encoding::kMsgpack, Encoding::kPickle),
                         [](const auto& info) {
                           return info.param == Encoding::kMsgpack ? "msgpack" : "pickle";
                         });

TEST_P(ZeoMessage, CallsOfThePage_AreEncodedToTheSameBytes) {
  const std::int64_t txid = GetParam() == Encoding::kMsgpack ? 140383168603856 : 140029692024080;
  const std::int64_t store_txid =
      GetParam() == Encoding::kMsgpack ? 140383168607696 : 140029711086800;
  EXPECT_EQ(encode_heartbeat(GetParam()), bytes("heartbeat"));
  EXPECT_EQ(encode_call(GetParam(), 1, false, "register", {{Arg("1"), Arg(true)}}),
            bytes("register"));
  EXPECT_EQ(encode_call(GetParam(), 3, false, "getInvalidations", {{Arg(kInit)}}),
            bytes("get-invalidations"));
  EXPECT_EQ(encode_call(GetParam(), 0, true, "tpc_begin",
                        {{Arg(txid), Arg(ByteView()), Arg(ByteView()), Arg::empty_map(),
                          Arg(nullptr), Arg(" ")}}),
            bytes("tpc-begin"));
  const ByteView parts[] = {as_bytes("\x80\x03N.\x80\x03"), as_bytes("K\x02.")};
  EXPECT_EQ(encode_call(GetParam(), 0, true, "storea",
                        {{Arg(Oid{1}), Arg(kNoTid), Arg(std::span<const ByteView>(parts)),
                          Arg(store_txid)}}),
            bytes("storea"));
  EXPECT_EQ(encode_call(GetParam(), 4, false, "vote", {{Arg(store_txid)}}), bytes("vote"));
}

TEST_P(ZeoMessage, Arguments_OfEverySize_ComeBackAsTheyWere) {
  const std::string text(300, 'x');
  const Bytes small(200, std::byte{1});
  const Bytes medium(300, std::byte{2});
  const Bytes large(70000, std::byte{3});
  const std::int64_t numbers[] = {0,     127,         128,         255,         256,      65535,
                                  65536, 4294967295,  4294967296,  (1LL << 47), -1,       -32,
                                  -33,   -2147483648, -2147483649, 1LL << 55,   INT64_MAX};
  const Bytes out =
      encode_call(GetParam(), 7, false, "m",
                  {{Arg(text), Arg(ByteView(small)), Arg(ByteView(medium)), Arg(ByteView(large)),
                    Arg(std::span<const std::int64_t>(numbers)), Arg(nullptr), Arg(false)}});
  const Message call = Message::decode(GetParam(), frame_of(ByteView(out).subspan(4)));
  EXPECT_EQ(call.id(), 7);
  EXPECT_FALSE(call.is_reply());
  const auto args = *sequence(call.args());
  EXPECT_EQ(args[0].text(), text);
  EXPECT_TRUE(std::ranges::equal(*args[1].bytes(), small));
  EXPECT_TRUE(std::ranges::equal(*args[2].bytes(), medium));
  EXPECT_TRUE(std::ranges::equal(*args[3].bytes(), large));
  const auto list = *sequence(args[4]);
  ASSERT_EQ(list.size(), std::size(numbers));
  for (std::size_t i = 0; i < list.size(); ++i) EXPECT_EQ(list[i].integer(), numbers[i]);
  EXPECT_TRUE(args[5].is_none());
  EXPECT_EQ(args[6].boolean(), false);
}

TEST_P(ZeoMessage, RepliesOfThePage_SayWhatThePageSays) {
  const Message found = message("load-before-found");
  EXPECT_TRUE(found.is_reply());
  EXPECT_FALSE(found.is_exception());
  const auto loaded = *sequence(found.args());
  EXPECT_EQ(loaded[0].text(), std::string_view("\x80\x03N.\x80\x03K\0.", 9));
  EXPECT_EQ(id_of(loaded[1]), kInit.value);
  EXPECT_TRUE(loaded[2].is_none());

  const Message unknown = message("load-before-unknown");
  EXPECT_TRUE(unknown.is_exception());
  const auto error = *sequence(unknown.args());
  EXPECT_EQ(error[0].text(), "ZODB.POSException.POSKeyError");
  EXPECT_EQ(id_of((*sequence(error[1]))[0]), 7u);

  const Message invalidate = message("invalidate");
  EXPECT_EQ(invalidate.name(), "invalidateTransaction");
  EXPECT_EQ(invalidate.id(), 0);
  const auto told = *sequence(invalidate.args());
  ASSERT_TRUE(id_of(told[0]).has_value());
  EXPECT_EQ(sequence(told[1])->size(), 2u);

  const Message conflict_reply = message("conflict");
  const auto conflict = *sequence(conflict_reply.args());
  EXPECT_EQ(conflict[0].text(), "ZODB.POSException.ConflictError");
  EXPECT_EQ(id_of(*conflict[1].get("oid")), 0u);
  EXPECT_EQ(id_of((*sequence(*conflict[1].get("serials")))[1]), kInit.value);

  const Message history_reply = message("history-reply");
  const auto history = *sequence(history_reply.args());
  ASSERT_EQ(history.size(), 2u);
  EXPECT_EQ(history[0].get("user_name")->text(), "user");
  EXPECT_NEAR(*history[1].get("time")->real(), 1704067260.0, 1);
  EXPECT_EQ(history[1].get("size")->integer(), 9);
}

TEST_P(ZeoMessage, EveryCutOfAFrame_IsCorrupt) {
  const std::string names[] = {"load-before-found", "conflict", "history-reply", "invalidate"};
  for (const std::string& name : names) {
    const ByteView payload = ByteView(bytes(name)).subspan(4);
    for (std::size_t size = 0; size < payload.size(); ++size) {
      EXPECT_THROW(Message::decode(GetParam(), frame_of(payload.first(size))), Corrupt)
          << name << " cut to " << size;
    }
    Bytes longer(payload.begin(), payload.end());
    longer.push_back(std::byte{0xc0});
    EXPECT_THROW(Message::decode(GetParam(), frame_of(longer)), Corrupt);
  }
}

TEST(ZeoMsgpack, LengthsThatAreNotThere_AreRefusedWithoutMemory) {
  const std::string_view hostile[] = {std::string_view("\xdd\xff\xff\xff\xff", 5),
                                      std::string_view("\xdf\xff\xff\xff\xff", 5),
                                      std::string_view("\xc6\xff\xff\xff\xff", 5),
                                      std::string_view("\xdb\xff\xff\xff\xff", 5),
                                      std::string_view("\xc9\xff\xff\xff\xff", 5),
                                      std::string_view("\xc1", 1),
                                      std::string_view("\xdc\x00", 2)};
  for (const auto text : hostile) {
    MsgpackReader reader(as_bytes(text));
    EXPECT_THROW(reader.next(), Corrupt);
  }
}

TEST(ZeoMsgpack, NestingBeyondTheLimit_IsRefused) {
  Bytes deep(100000, std::byte{0x91});
  deep.push_back(std::byte{0xc0});
  MsgpackReader reader(deep);
  EXPECT_THROW(reader.next(), Corrupt);
}

TEST(ZeoMsgpack, MoreValuesThanTheLimit_AreRefused) {
  Bytes many{std::byte{0xdd}, std::byte{0}, std::byte{0x60}, std::byte{0}, std::byte{0}};
  many.resize(5 + 0x600000, std::byte{0xc0});
  MsgpackReader reader(many);
  EXPECT_THROW(reader.next(), Corrupt);
}

std::vector<Bytes> read_in_pieces(ByteView stream, std::size_t piece) {
  FrameReader reader;
  std::vector<Bytes> frames;
  while (!stream.empty()) {
    const auto room = reader.room();
    const std::size_t size = std::min({piece, room.size(), stream.size()});
    std::copy_n(stream.begin(), size, room.begin());
    reader.advance(size, [&](const Frame& frame) {
      frames.emplace_back(frame.view().begin(), frame.view().end());
    });
    stream = stream.subspan(size);
  }
  EXPECT_TRUE(reader.idle());
  return frames;
}

TEST(ZeoFrames, AStreamCutAnywhere_GivesTheSameFrames) {
  std::vector<Bytes> wanted;
  Bytes stream;
  for (const std::size_t size : {1u, 3u, 70000u, 5u, 65532u, 65533u, 9u << 20, 2u}) {
    Bytes payload(size);
    for (std::size_t i = 0; i < size; ++i) payload[i] = static_cast<std::byte>(i * 7 + size);
    stream.resize(stream.size() + 4);
    put_be<4>(stream.data() + stream.size() - 4, size);
    append(stream, ByteView(payload));
    wanted.push_back(std::move(payload));
  }
  for (const std::size_t piece : {7u, 4096u, 65536u, 1u << 30}) {
    EXPECT_EQ(read_in_pieces(stream, piece), wanted) << piece;
  }
}

TEST(ZeoFrames, LengthBeyondTheLimit_IsCorrupt) {
  for (const std::uint64_t length : {0xffffffffull, 0ull, FrameReader::kMaxFrame + 1ull}) {
    Bytes stream(5);
    put_be<4>(stream.data(), length);
    EXPECT_THROW(read_in_pieces(stream, 5), Corrupt);
  }
}

TEST(ZeoFrames, LengthOfALargeFrameAlone_TakesLittleMemory) {
  FrameReader reader;
  put_be<4>(reader.room().data(), FrameReader::kMaxFrame);
  reader.advance(4, [](const Frame&) {});
  EXPECT_LE(reader.room().size(), 4u << 20);
}

}  // namespace
}  // namespace zbig::zeo
