// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// Byte buffers, and big-endian numbers in them.

namespace zbig {

using Bytes = std::vector<std::byte>;
using ByteView = std::span<const std::byte>;

inline ByteView as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(ByteView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline void append(Bytes& out, ByteView bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}
inline void append(Bytes& out, std::string_view text) { append(out, as_bytes(text)); }

// Reads an unsigned big-endian number of N bytes. The caller has checked the bounds.
template <std::size_t N>
std::uint64_t get_be(const std::byte* at) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < N; ++i) value = value << 8 | std::to_integer<std::uint64_t>(at[i]);
  return value;
}
template <std::size_t N>
void put_be(std::byte* at, std::uint64_t value) {
  for (std::size_t i = N; i-- > 0; value >>= 8) at[i] = static_cast<std::byte>(value & 0xff);
}

}  // namespace zbig
