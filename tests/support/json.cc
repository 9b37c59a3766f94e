// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/json.h"

#include <charconv>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace zbig::test {

namespace {

void put_utf8(std::string& out, unsigned code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
  } else if (code < 0x10000) {
    out += {static_cast<char>(0xe0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 63)),
            static_cast<char>(0x80 | (code & 63))};
  } else {
    out += {static_cast<char>(0xf0 | code >> 18), static_cast<char>(0x80 | (code >> 12 & 63)),
            static_cast<char>(0x80 | (code >> 6 & 63)), static_cast<char>(0x80 | (code & 63))};
  }
}

}  // namespace

class Json::Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Json document() {
    auto value = any();
    if (skip_space() != '\0') fail();
    return value;
  }

 private:
  [[noreturn]] void fail() const {
    throw std::runtime_error("no JSON at offset " + std::to_string(at_));
  }
  char skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != text_.npos) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  void expect(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) fail();
    at_ += word.size();
  }

  Json any() {
    Json out;
    switch (skip_space()) {
      case '{':
        out.value_ = object();
        break;
      case '[':
        out.value_ = list();
        break;
      case '"':
        out.value_ = string();
        break;
      case 't':
        expect("true");
        out.value_ = true;
        break;
      case 'f':
        expect("false");
        out.value_ = false;
        break;
      case 'n':
        expect("null");
        break;
      default:
        out.value_ = number();
    }
    return out;
  }

  Object object() {
    Object out;
    expect("{");
    if (skip_space() == '}') return ++at_, out;
    for (;;) {
      skip_space();
      auto key = string();
      skip_space();
      expect(":");
      out.insert_or_assign(std::move(key), any());
      if (skip_space() == '}') return ++at_, out;
      expect(",");
    }
  }

  List list() {
    List out;
    expect("[");
    if (skip_space() == ']') return ++at_, out;
    for (;;) {
      out.push_back(any());
      if (skip_space() == ']') return ++at_, out;
      expect(",");
    }
  }

  double number() {
    double out = 0;
    const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), out);
    if (error != std::errc()) fail();
    at_ = static_cast<std::size_t>(end - text_.data());
    return out;
  }

  unsigned four_digits() {
    unsigned code = 0;
    const auto digits = text_.substr(at_, 4);
    std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    at_ += 4;
    return code;
  }

  std::string string() {
    std::string out;
    expect("\"");
    for (;;) {
      if (at_ >= text_.size()) fail();
      const char c = text_[at_++];
      if (c == '"') return out;
      if (c != '\\') {
        out += c;
        continue;
      }
      const char escaped = at_ < text_.size() ? text_[at_++] : '\0';
      const std::string_view names = "bfnrt";
      if (escaped == 'u') {
        auto code = four_digits();
        if (code >= 0xd800 && code < 0xdc00) {
          expect("\\u");
          code = 0x10000 + ((code - 0xd800) << 10) + (four_digits() - 0xdc00);
        }
        put_utf8(out, code);
      } else if (const auto i = names.find(escaped); i != names.npos) {
        out += "\b\f\n\r\t"[i];
      } else {
        out += escaped;
      }
    }
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

Json Json::parse(std::string_view text) { return Parser(text).document(); }

Json Json::parse_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot open " + path);
  std::ostringstream content;
  content << in.rdbuf();
  return parse(content.str());
}

const Json& Json::operator[](std::string_view key) const {
  static const Json kNull;
  const auto found = object().find(key);
  return found == object().end() ? kNull : found->second;
}

}  // namespace zbig::test
