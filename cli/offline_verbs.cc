// SPDX-License-Identifier: BSD-3-Clause

#include "cli/verb.h"

// The verbs that work on a database without the agent.

namespace zbig {

std::span<const Verb> offline_verbs() { return {}; }

}  // namespace zbig
