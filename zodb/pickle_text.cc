// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/pickle_text.h"

#include <charconv>
#include <cstdint>

namespace zbig {
namespace {

std::optional<std::uint32_t> take_digits(std::string_view& text, std::size_t size, int base) {
  if (text.size() < size) return std::nullopt;
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + size, value, base);
  if (error != std::errc() || end != text.data() + size) return std::nullopt;
  text.remove_prefix(size);
  return value;
}

void append_utf8(std::string& out, std::uint32_t point) {
  const auto byte = [&out](std::uint32_t value) { out.push_back(static_cast<char>(value)); };
  if (point < 0x80) {
    byte(point);
  } else if (point < 0x800) {
    byte(0xc0 | point >> 6);
    byte(0x80 | (point & 0x3f));
  } else if (point < 0x10000) {
    byte(0xe0 | point >> 12);
    byte(0x80 | (point >> 6 & 0x3f));
    byte(0x80 | (point & 0x3f));
  } else {
    byte(0xf0 | point >> 18);
    byte(0x80 | (point >> 12 & 0x3f));
    byte(0x80 | (point >> 6 & 0x3f));
    byte(0x80 | (point & 0x3f));
  }
}

// The character that a one-letter escape means, or nothing.
std::optional<char> simple_escape(char letter) {
  switch (letter) {
    case '\\':
    case '\'':
    case '"':
      return letter;
    case 'a':
      return '\a';
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    case 'v':
      return '\v';
    default:
      return std::nullopt;
  }
}

}  // namespace

std::optional<std::string> decode_string_literal(std::string_view literal) {
  if (literal.size() < 2 || literal.front() != literal.back() ||
      (literal.front() != '\'' && literal.front() != '"'))
    return std::nullopt;
  literal = literal.substr(1, literal.size() - 2);

  std::string out;
  while (!literal.empty()) {
    const char c = literal.front();
    literal.remove_prefix(1);
    if (c != '\\') {
      out.push_back(c);
      continue;
    }
    if (literal.empty()) return std::nullopt;
    const char letter = literal.front();
    if (const auto simple = simple_escape(letter)) {
      out.push_back(*simple);
      literal.remove_prefix(1);
    } else if (letter == 'x') {
      literal.remove_prefix(1);
      const auto value = take_digits(literal, 2, 16);
      if (!value) return std::nullopt;
      out.push_back(static_cast<char>(*value));
    } else if (letter >= '0' && letter <= '7') {
      std::size_t digits = 1;
      while (digits < 3 && digits < literal.size() && literal[digits] >= '0' &&
             literal[digits] <= '7')
        ++digits;
      out.push_back(static_cast<char>(*take_digits(literal, digits, 8)));
    } else {
      out.push_back('\\');  // as Python: an unknown escape is left as it is
    }
  }
  return out;
}

std::optional<std::string> decode_raw_unicode_escape(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const bool escape = text.starts_with("\\u") || text.starts_with("\\U");
    if (!escape) {
      append_utf8(out, static_cast<unsigned char>(text.front()));
      text.remove_prefix(1);
      continue;
    }
    const std::size_t digits = text[1] == 'u' ? 4 : 8;
    text.remove_prefix(2);
    const auto point = take_digits(text, digits, 16);
    if (!point || *point > 0x10ffff) return std::nullopt;
    append_utf8(out, *point);
  }
  return out;
}

}  // namespace zbig
