// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "agent/agent.h"
#include "agent/http_server.h"

namespace zbig {

// The HTTP API of docs/api.md: JSON in, the agent's work, JSON out; errors by docs/errors.md. Any
// thread; throws nothing.
HttpResponse answer_request(Agent& agent, const HttpRequest& request) noexcept;

}  // namespace zbig
