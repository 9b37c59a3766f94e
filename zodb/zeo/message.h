// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "zodb/bytes.h"
#include "zodb/ids.h"
#include "zodb/pickle_value.h"
#include "zodb/zeo/frame.h"

// Messages of ZEO's protocol 5: calls, one-way calls and replies, in either of its two encodings
// (docs/formats/zeo.md). A message is (id, flag, name, arguments).

namespace zbig::zeo {

// The first byte of both sides' greeting says it.
enum class Encoding : char {
  kMsgpack = 'M',
  kPickle = 'Z',  // protocol 3
};

// An argument of a call. It looks at what it was made from.
class Arg {
 public:
  enum class Kind { kNone, kBool, kInt, kText, kId, kBytes, kEmptyMap, kIntList };

  Arg(std::nullptr_t) : kind_(Kind::kNone) {}
  Arg(bool value) : kind_(Kind::kBool), number_(value ? 1 : 0) {}
  Arg(std::int64_t value) : kind_(Kind::kInt), number_(static_cast<std::uint64_t>(value)) {}
  Arg(const char* text) : Arg(std::string_view(text)) {}
  Arg(std::string_view text) : kind_(Kind::kText), bytes_(as_bytes(text)) {}
  Arg(Oid oid) : kind_(Kind::kId), number_(oid.value) {}
  Arg(Tid tid) : kind_(Kind::kId), number_(tid.value) {}
  Arg(ByteView bytes) : kind_(Kind::kBytes), bytes_(bytes) {}
  // Bytes in parts, which become one byte string.
  Arg(std::span<const ByteView> parts) : kind_(Kind::kBytes), parts_(parts) {}
  Arg(std::span<const std::int64_t> list) : kind_(Kind::kIntList), list_(list) {}
  static Arg empty_map() {
    Arg arg(nullptr);
    arg.kind_ = Kind::kEmptyMap;
    return arg;
  }

  Kind kind() const { return kind_; }
  bool boolean() const { return number_ != 0; }
  std::int64_t integer() const { return static_cast<std::int64_t>(number_); }
  std::uint64_t id() const { return number_; }
  std::string_view text() const { return as_text(bytes_); }
  std::span<const ByteView> parts() const {
    return parts_.data() != nullptr ? parts_ : std::span(&bytes_, 1);
  }
  std::span<const std::int64_t> list() const { return list_; }

 private:
  Kind kind_;
  std::uint64_t number_ = 0;
  ByteView bytes_;
  std::span<const ByteView> parts_;
  std::span<const std::int64_t> list_;
};

// The frame of a call, its length in front. `id` is 0 for a one-way call. Throws Invalid if it
// would be larger than a frame can be.
Bytes encode_call(Encoding encoding, std::int64_t id, bool one_way, std::string_view method,
                  std::span<const Arg> args);
// The frame of (-1, 0, ".reply", None), which servers ignore: a sign of life.
Bytes encode_heartbeat(Encoding encoding);

// A message from the server, which owns all that its values look at.
class Message {
 public:
  // Throws Corrupt for what is no message.
  static Message decode(Encoding encoding, Frame frame);

  // -1 for an id that is no integer: none that we gave.
  std::int64_t id() const { return id_; }
  bool is_reply() const { return name_ == ".reply"; }
  bool is_exception() const { return is_reply() && flag_ == 2; }
  std::string_view name() const { return name_; }
  Value args() const { return *args_; }
  const Frame& frame() const { return frame_; }

 private:
  class Reader;
  Message() = default;

  Frame frame_;
  std::shared_ptr<const Reader> reader_;
  std::int64_t id_ = 0;
  std::int64_t flag_ = 0;
  std::string_view name_;
  std::optional<Value> args_;
};

// The items of a tuple or list, which servers exchange freely; nothing for anything else.
std::optional<std::span<const Value>> sequence(Value value);
// A byte string of exactly 8 bytes.
std::optional<std::uint64_t> id_of(Value value);

}  // namespace zbig::zeo
