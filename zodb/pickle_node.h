// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "zodb/pickle_value.h"

// The representation of values; for pickle_value.cc and the readers that make them
// (pickle_reader.cc, zeo/msgpack.cc) alone.

namespace zbig {

// Lives in the reader's arena and is never destroyed, so it owns nothing.
struct Value::Node {
  Kind kind = Kind::kNone;
  RefForm form = RefForm::kClass;  // kRef
  // Something holds it: from then on it gets no more items (V1).
  bool held = false;
  std::optional<ClassId> cls;  // kClass, kRef
  std::uint32_t depth = 0;     // of containers in it
  std::uint32_t size = 0;      // of what `data` points to
  std::uint32_t capacity = 0;  // of `data`, in items
  std::size_t offset = 0;
  std::uint64_t number = 0;  // kBool, kInt; kFloat: its bits; kRef: the oid
  // kBytes, kString, kText: the bytes. kClass, kRef: "module\nname". Containers: Values.
  const void* data = nullptr;

  std::string_view chars() const { return {static_cast<const char*>(data), size}; }
  std::span<const Value> values() const { return {static_cast<const Value*>(data), size}; }
};

static_assert(std::is_trivially_destructible_v<Value::Node> && sizeof(Value::Node) <= 48);

}  // namespace zbig
