// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <mutex>
#include <stop_token>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "agent/fd.h"

namespace zbig {

using Json = nlohmann::ordered_json;

// A control socket (docs/control-protocol.md, docs/fuse-control.md). Connections are kept for the
// next request, since a commit makes several; as many as there were requests at once.
//
// Any thread.
class ControlClient {
 public:
  // `stop`: of the agent, which must not be kept from ending by who does not answer.
  ControlClient(std::string socket_path, std::stop_token stop)
      : socket_path_(std::move(socket_path)), stop_(std::move(stop)) {}

  const std::string& socket_path() const { return socket_path_; }

  // Throws Unavailable if nobody is there, who is there goes away or does not answer in time (which
  // is little once the agent is stopping), or
  // the process of `needed` (a pidfd, or -1) has ended; and the error that is replied. `passed`:
  // for the file that comes with the reply, if it is wanted.
  Json request(const Json& request, std::chrono::milliseconds timeout, int needed = -1,
               Fd* passed = nullptr) const;

 private:
  Fd connection() const;

  const std::string socket_path_;
  const std::stop_token stop_;
  mutable std::mutex mutex_;
  mutable std::vector<Fd> idle_;  // guarded by mutex_
};

// A connected Unix stream socket. Throws Unavailable.
Fd connect_unix_socket(const std::string& path);
// Throws Invalid if the path is too long for a socket (107 bytes).
Fd listen_unix_socket(const std::string& path);

}  // namespace zbig
