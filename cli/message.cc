// SPDX-License-Identifier: BSD-3-Clause

#include "cli/verb.h"

namespace zbig {

int exit_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalid:
      return 2;
    case ErrorCode::kConflict:
      return 3;
    case ErrorCode::kNotFound:
      return 4;
    case ErrorCode::kBusy:
      return 5;
    case ErrorCode::kUnavailable:
      return 6;
    case ErrorCode::kCorrupt:
      return 7;
    case ErrorCode::kFailed:
    case ErrorCode::kReadOnly:
    case ErrorCode::kNoSpace:
    case ErrorCode::kUnsupported:
      return 1;
  }
  return 1;
}

std::string one_line(std::string_view text) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      out += "\\x";
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace zbig
