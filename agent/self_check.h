// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <string>

#include "agent/fd.h"

namespace zbig {

// Whether the agent that listens at `socket` answers a request, as any client would make it, in
// time: the state of all devices. That takes a thread, and every lock that answering needs; what
// hangs in a server does not hold it up (agent/database.h, status()). A refusal for too many
// requests at once is an answer too: a busy agent is alive.
// Also false, at once, when `stop` becomes readable meanwhile.
bool answers_itself(const std::string& socket, const Fd& stop, std::chrono::milliseconds patience);

}  // namespace zbig
