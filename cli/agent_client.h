// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "cli/json.h"

// The agent as the verbs of devices see it: requests to its HTTP API (docs/api.md) on a Unix
// socket, one a connection.

namespace zbig {

class AgentClient {
 public:
  // `socket`: as --socket said; otherwise $ZBIG_SOCKET, otherwise the usual place
  // (agent/api/places.h).
  explicit AgentClient(const std::optional<std::string>& socket);

  bool listens() const;
  // Starts the agent if none listens, unless somebody chose the socket: then it is theirs to start.
  void start_if_needed() const;

  // The answer's JSON. Throws what the agent answered, as an AdvisedError; Unavailable if there is
  // no agent or it goes away before it has answered. An agent at work may take its time: without a
  // timeout it is waited for as long as it lives.
  Json request(const std::string& method, const std::string& target, const Json& body = nullptr,
               std::optional<std::chrono::milliseconds> timeout = std::nullopt) const;
  // POST with the first `size` bytes of a file for its body. `sent` is told how many went out, and
  // may throw to give up.
  Json upload(const std::string& target, int fd, std::uint64_t size,
              const std::function<void(std::uint64_t)>& sent) const;

 private:
  [[noreturn]] void throw_no_agent(int error) const;

  std::string socket_;
  bool chosen_;
};

// "DEVICE" as a part of a target's path.
std::string percent_encoded(const std::string& text);

}  // namespace zbig
