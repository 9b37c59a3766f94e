// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string_view>

#include "zodb/error.h"

// The table of docs/errors.md, for what goes over a socket: words in JSON, and HTTP statuses.

namespace zbig {

std::string_view error_word(ErrorCode code);
// kFailed for a word that is not in the table.
ErrorCode error_code(std::string_view word);
// Throws the class of zodb/error.h that stands for the code.
[[noreturn]] void throw_error(ErrorCode code, const std::string& sentence);
unsigned http_status(ErrorCode code);

}  // namespace zbig
