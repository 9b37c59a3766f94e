// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>
#include <string>
#include <string_view>

// The two text forms of strings, which only protocol 0 writes.

namespace zbig {

// Python's string literal with its quotes ('it\'s\n', "\x00"). Nothing if it is none.
std::optional<std::string> decode_string_literal(std::string_view literal);

// Latin-1 with \uXXXX and \UXXXXXXXX, into UTF-8. Nothing if an escape is cut or no code point.
std::optional<std::string> decode_raw_unicode_escape(std::string_view text);

}  // namespace zbig
