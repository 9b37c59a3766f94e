// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/msgpack.h"

#include <bit>
#include <limits>

#include "zodb/error.h"
#include "zodb/pickle_node.h"

namespace zbig::zeo {

using Node = Value::Node;

void MsgpackReader::corrupt(const std::string& what) const {
  throw Corrupt("MessagePack at offset " + std::to_string(began_) + ": " + what);
}

ByteView MsgpackReader::take(std::size_t size) {  // M1
  if (size > in_.size() - at_) corrupt("it runs past the end of the message");
  const ByteView taken = in_.subspan(at_, size);
  at_ += size;
  return taken;
}

std::uint64_t MsgpackReader::number(std::size_t size) {
  std::uint64_t value = 0;
  for (const std::byte byte : take(size)) value = value << 8 | std::to_integer<std::uint64_t>(byte);
  return value;
}

Node* MsgpackReader::node(Kind kind) {
  if (++count_ > kMaxValues) corrupt("more than " + std::to_string(kMaxValues) + " values");  // M2
  Node* made = std::pmr::polymorphic_allocator<>(&arena_).new_object<Node>();
  made->kind = kind;
  made->offset = began_;
  return made;
}

Node* MsgpackReader::integer(std::int64_t value) {
  Node* made = node(Kind::kInt);
  made->number = static_cast<std::uint64_t>(value);
  return made;
}

Node* MsgpackReader::chars(Kind kind, std::size_t size) {
  const ByteView bytes = take(size);
  Node* made = node(kind);
  made->data = bytes.data();
  made->size = static_cast<std::uint32_t>(size);
  return made;
}

Node* MsgpackReader::container(Kind kind, std::size_t items) {
  if (items > in_.size() - at_) corrupt("it runs past the end of the message");  // M1
  if (count_ + items > kMaxValues) corrupt("more than " + std::to_string(kMaxValues) + " values");
  Node* made = node(kind);
  if (items == 0) return made;
  if (open_.size() == kMaxDepth) corrupt("containers nest too deep");
  made->data = arena_.allocate(items * sizeof(Value), alignof(Value));
  made->capacity = static_cast<std::uint32_t>(items);
  open_.push_back({made, items});
  return made;
}

Node* MsgpackReader::extension(std::size_t size) {
  take(1 + size);
  return node(Kind::kOpaque);
}

// One value; of a container the head, whose items are to come.
Node* MsgpackReader::one() {
  began_ = at_;
  const auto code = std::to_integer<std::uint8_t>(take(1)[0]);
  if (code <= 0x7f) return integer(code);
  if (code <= 0x8f) return container(Kind::kDict, std::size_t{2} * (code & 0x0f));
  if (code <= 0x9f) return container(Kind::kTuple, code & 0x0f);
  if (code <= 0xbf) return chars(Kind::kText, code & 0x1f);
  if (code >= 0xe0) return integer(static_cast<std::int8_t>(code));
  switch (code) {
    case 0xc0:
      return node(Kind::kNone);
    case 0xc2:
    case 0xc3: {
      Node* made = node(Kind::kBool);
      made->number = code & 1;
      return made;
    }
    case 0xc4:
    case 0xc5:
    case 0xc6:
      return chars(Kind::kBytes, number(std::size_t{1} << (code - 0xc4)));
    case 0xc7:
    case 0xc8:
    case 0xc9:
      return extension(number(std::size_t{1} << (code - 0xc7)));
    case 0xca: {
      Node* made = node(Kind::kFloat);
      const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(number(4)));
      made->number = std::bit_cast<std::uint64_t>(static_cast<double>(value));
      return made;
    }
    case 0xcb: {
      Node* made = node(Kind::kFloat);
      made->number = number(8);
      return made;
    }
    case 0xcc:
    case 0xcd:
    case 0xce:
      return integer(static_cast<std::int64_t>(number(std::size_t{1} << (code - 0xcc))));
    case 0xcf: {
      const std::uint64_t value = number(8);
      if (value > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
        return node(Kind::kOpaque);
      }
      return integer(static_cast<std::int64_t>(value));
    }
    case 0xd0:
      return integer(static_cast<std::int8_t>(number(1)));
    case 0xd1:
      return integer(static_cast<std::int16_t>(number(2)));
    case 0xd2:
      return integer(static_cast<std::int32_t>(number(4)));
    case 0xd3:
      return integer(static_cast<std::int64_t>(number(8)));
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
      return extension(std::size_t{1} << (code - 0xd4));
    case 0xd9:
    case 0xda:
    case 0xdb:
      return chars(Kind::kText, number(std::size_t{1} << (code - 0xd9)));
    case 0xdc:
      return container(Kind::kTuple, number(2));
    case 0xdd:
      return container(Kind::kTuple, number(4));
    case 0xde:
      return container(Kind::kDict, 2 * number(2));
    case 0xdf:
      return container(Kind::kDict, 2 * number(4));
    default:
      corrupt("byte 0xc1, which means nothing");
  }
}

Value MsgpackReader::next() {
  open_.clear();
  Node* const first = one();
  while (!open_.empty()) {
    const std::size_t level = open_.size() - 1;  // one() may add to open_
    if (open_[level].wanted == 0) {
      open_.pop_back();
      continue;
    }
    --open_[level].wanted;
    Node* const holder = open_[level].node;
    Node* const item = one();
    auto* items = static_cast<Value*>(const_cast<void*>(holder->data));
    std::construct_at(items + holder->size++, item);
  }
  return Value(first);
}

}  // namespace zbig::zeo
