// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "cli/json.h"
#include "cli/verb.h"

namespace zbig {

// A commit that another one came before. `blocks` is the list of docs/api.md.
class AgentConflict : public AdvisedError {
 public:
  AgentConflict(const std::string& sentence, const std::string& advice, Json blocks)
      : AdvisedError(ErrorCode::kConflict, sentence, advice), blocks(std::move(blocks)) {}
  Json blocks;
};

}  // namespace zbig
