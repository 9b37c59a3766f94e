// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/error_word.h"

#include <array>

namespace zbig {
namespace {

struct Row {
  ErrorCode code;
  std::string_view word;
  unsigned http;
};

constexpr std::array kRows = {
    Row{ErrorCode::kFailed, "failed", 500},           Row{ErrorCode::kInvalid, "invalid", 400},
    Row{ErrorCode::kUnsupported, "unsupported", 501}, Row{ErrorCode::kConflict, "conflict", 409},
    Row{ErrorCode::kNotFound, "not_found", 404},      Row{ErrorCode::kBusy, "busy", 423},
    Row{ErrorCode::kUnavailable, "unavailable", 503}, Row{ErrorCode::kCorrupt, "corrupt", 502},
    Row{ErrorCode::kReadOnly, "read_only", 403},      Row{ErrorCode::kNoSpace, "no_space", 507},
};

const Row& row_of(ErrorCode code) {
  for (const Row& row : kRows) {
    if (row.code == code) return row;
  }
  return kRows.front();
}

}  // namespace

std::string_view error_word(ErrorCode code) { return row_of(code).word; }

ErrorCode error_code(std::string_view word) {
  for (const Row& row : kRows) {
    if (row.word == word) return row.code;
  }
  return ErrorCode::kFailed;
}

void throw_error(ErrorCode code, const std::string& sentence) {
  switch (code) {
    case ErrorCode::kFailed:
      throw Failed(sentence);
    case ErrorCode::kInvalid:
      throw Invalid(sentence);
    case ErrorCode::kConflict:
      throw ErrorOf<ErrorCode::kConflict>(sentence);
    case ErrorCode::kNotFound:
      throw NotFound(sentence);
    case ErrorCode::kBusy:
      throw Busy(sentence);
    case ErrorCode::kUnavailable:
      throw Unavailable(sentence);
    case ErrorCode::kCorrupt:
      throw Corrupt(sentence);
    case ErrorCode::kReadOnly:
      throw ReadOnly(sentence);
    case ErrorCode::kNoSpace:
      throw NoSpace(sentence);
    case ErrorCode::kUnsupported:
      throw Unsupported(sentence);
  }
  throw Failed(sentence);
}

unsigned http_status(ErrorCode code) { return row_of(code).http; }

}  // namespace zbig
