// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <string>

#include <nlohmann/json_fwd.hpp>

namespace zbig {

using Json = nlohmann::ordered_json;

// One request to a server's control socket (docs/control-protocol.md), over a connection of its
// own. Throws Unavailable if the server is not there, goes away or does not answer in time, and
// the error that the server replies.
Json control_request(const std::string& socket_path, const Json& request,
                     std::chrono::milliseconds timeout);

// A connected Unix stream socket. Throws Unavailable.
class Fd;
Fd connect_unix_socket(const std::string& path);
// Throws Invalid if the path is too long for a socket (107 bytes).
Fd listen_unix_socket(const std::string& path);

}  // namespace zbig
