// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "zodb/error.h"

namespace zbig {

// An error together with what the user can do about it.
class HintedError : public Error {
 public:
  HintedError(ErrorCode code, const std::string& sentence, std::string hint)
      : Error(code, sentence), hint(std::move(hint)) {}
  std::string hint;
};

}  // namespace zbig
