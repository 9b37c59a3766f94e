// SPDX-License-Identifier: BSD-3-Clause

#include "cli/verb.h"

// The verbs that ask the agent.

namespace zbig {

std::span<const Verb> device_verbs() { return {}; }

}  // namespace zbig
