// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory_resource>
#include <vector>

#include "zodb/bytes.h"
#include "zodb/pickle_value.h"

// MsgpackReader: MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md) into the same
// values that a pickle gives, so that whoever looks at a message need not know how it was encoded.
// Arrays are tuples, bin is bytes, str is text.
//
// The input is a stranger's. Time and memory are linear in its size and capped; nothing recurses.
//
// M1  Every length is compared with what is left of the input before anything is made of it; an
//     item takes at least a byte, so this bounds containers too.
// M2  At most kMaxValues values, nested at most kMaxDepth deep.
// Whoever breaks one gets Corrupt, which names the offset.

namespace zbig::zeo {

class MsgpackReader {
 public:
  static constexpr std::size_t kMaxValues = 4u << 20;  // of some 60 bytes each
  static constexpr std::size_t kMaxDepth = 100;

  // The input must outlive the reader, and the reader its values.
  explicit MsgpackReader(ByteView input) : in_(input) {}
  MsgpackReader(const MsgpackReader&) = delete;
  MsgpackReader& operator=(const MsgpackReader&) = delete;

  // The next value. Throws Corrupt.
  Value next();
  bool at_end() const { return at_ == in_.size(); }

 private:
  struct Open {  // a container that waits for items
    Value::Node* node;
    std::size_t wanted;
  };

  [[noreturn]] void corrupt(const std::string& what) const;
  ByteView take(std::size_t size);
  std::uint64_t number(std::size_t size);
  Value::Node* node(Kind kind);
  Value::Node* integer(std::int64_t value);
  Value::Node* chars(Kind kind, std::size_t size);
  Value::Node* container(Kind kind, std::size_t items);
  Value::Node* extension(std::size_t size);
  Value::Node* one();

  ByteView in_;
  std::size_t at_ = 0;
  std::size_t began_ = 0;  // offset of the value that is being read
  std::size_t count_ = 0;
  std::pmr::monotonic_buffer_resource arena_;
  std::vector<Open> open_;
};

}  // namespace zbig::zeo
