// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/url.h"

#include <algorithm>

#include "zodb/error.h"

namespace zbig {

std::string percent_decode(std::string_view text, std::string_view url) {
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    const int high = i + 2 < text.size() ? digit(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? digit(text[i + 2]) : -1;
    if (high < 0 || low < 0 || (high == 0 && low == 0)) {
      throw Invalid("database '" + std::string(url) +
                    "': a '%' must be followed by two hex digits, not 00");
    }
    out.push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  return out;
}

std::string percent_encode(std::string_view text, std::string_view reserved) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte <= ' ' || byte >= 0x7f || c == '%' || c == '?' || c == '#' ||
        reserved.find(c) != std::string_view::npos) {
      out += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    } else {
      out += c;
    }
  }
  return out;
}

bool is_shared_url(std::string_view url) { return url.starts_with("zeo://"); }

std::map<std::string, std::string> parse_query(std::string_view query, std::string_view url) {
  std::map<std::string, std::string> options;
  while (!query.empty()) {
    const std::string_view option = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), option.size() + 1));
    const std::size_t equals = option.find('=');
    if (equals == std::string_view::npos || equals == 0) {
      throw Invalid("database '" + std::string(url) + "': '" + std::string(option) +
                    "' is no option, write NAME=VALUE");
    }
    const std::string name = percent_decode(option.substr(0, equals), url);
    if (!options.emplace(name, percent_decode(option.substr(equals + 1), url)).second) {
      throw Invalid("database '" + std::string(url) + "': " + name + " is given twice");
    }
  }
  return options;
}

}  // namespace zbig
