// SPDX-License-Identifier: BSD-3-Clause

#include "bigfile/dtype.h"

#include <array>
#include <charconv>
#include <utility>

namespace zbig {
namespace {

constexpr std::array<std::pair<std::string_view, std::string_view>, 15> kNames{{
    {"bool", "b1"},
    {"?", "b1"},
    {"int8", "i1"},
    {"int16", "i2"},
    {"int32", "i4"},
    {"int64", "i8"},
    {"uint8", "u1"},
    {"uint16", "u2"},
    {"uint32", "u4"},
    {"uint64", "u8"},
    {"float16", "f2"},
    {"float32", "f4"},
    {"float64", "f8"},
    {"complex64", "c8"},
    {"complex128", "c16"},
}};

// Sizes that a kind of number comes in.
constexpr std::array<std::pair<char, std::string_view>, 5> kSizes{{
    {'b', " 1 "},
    {'i', " 1 2 4 8 "},
    {'u', " 1 2 4 8 "},
    {'f', " 2 4 8 16 "},
    {'c', " 8 16 32 "},
}};

bool is_number(char kind, std::string_view size) {
  for (const auto& [known, sizes] : kSizes) {
    if (known == kind) return sizes.find(" " + std::string(size) + " ") != std::string_view::npos;
  }
  return false;
}

}  // namespace

std::optional<DType> parse_dtype(std::string_view text) {
  for (const auto& [name, code] : kNames) {
    if (text == name) return parse_dtype(code);
  }
  char order = '=';
  if (!text.empty() && std::string_view("<>=|").find(text.front()) != std::string_view::npos) {
    order = text.front();
    text.remove_prefix(1);
  }
  if (text.size() < 2) return std::nullopt;
  const char kind = text.front();
  const std::string_view digits = text.substr(1);
  std::uint64_t count = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
  // numpy keeps the size of an item in a C int.
  constexpr std::uint64_t kLargest = 0x7fffffff;
  if (error != std::errc() || end != digits.data() + digits.size() || count == 0) return {};
  if (digits.front() == '0' || count > kLargest / 4) return std::nullopt;

  const bool bytes = kind == 'S' || kind == 'V';
  if (!bytes && kind != 'U' && !is_number(kind, digits)) return std::nullopt;
  DType dtype;
  dtype.item_size = kind == 'U' ? 4 * count : count;
  // What has no byte order says so.
  const bool unordered = bytes || (kind != 'U' && count == 1);
  if (unordered) {
    order = '|';
  } else if (order == '=' || order == '|') {
    order = '<';
  }
  dtype.str = order + std::string(text);
  return dtype;
}

}  // namespace zbig
