// SPDX-License-Identifier: BSD-3-Clause
#include "tests/race/agent_api.h"

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>

#include <nlohmann/json.hpp>
#include <sys/socket.h>
#include <sys/un.h>

#include "agent/fd.h"

namespace zbig::race {
namespace {

using Json = nlohmann::json;

constexpr timeval kPatience{.tv_sec = 120, .tv_usec = 0};
constexpr int kDone = 200;
constexpr int kConflict = 409;

[[noreturn]] void throw_system_error(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

struct AgentApi::Answer {
  int status = 0;
  std::string body;
};

AgentApi::Answer AgentApi::ask(const std::string& method, const std::string& path,
                               const std::string& body) const {
  const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (socket_.size() >= sizeof address.sun_path) throw std::runtime_error(socket_ + ": too long");
  std::memcpy(address.sun_path, socket_.data(), socket_.size());
  setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    throw_system_error("connect to the agent at " + socket_);
  }
  const std::string request = method + " " + path +
                              " HTTP/1.1\r\nHost: zbig\r\nConnection: close\r\n"
                              "Content-Length: " +
                              std::to_string(body.size()) + "\r\n\r\n" + body;
  if (::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size())) {
    throw_system_error("ask the agent: " + method + " " + path);
  }
  // As was asked, the answer ends with the connection.
  std::string reply;
  while (true) {
    char piece[16384];
    const ssize_t n = ::recv(socket.get(), piece, sizeof piece, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_system_error("answer of the agent to " + method + " " + path + " " + body);
    if (n == 0) break;
    reply.append(piece, static_cast<std::size_t>(n));
  }
  const std::size_t end = reply.find("\r\n\r\n");
  if (!reply.starts_with("HTTP/1.1 ") || end == std::string::npos) {
    throw std::runtime_error("no answer of the agent to " + method + " " + path + " " + body);
  }
  return {std::atoi(reply.c_str() + std::strlen("HTTP/1.1 ")), reply.substr(end + 4)};
}

void AgentApi::must(const std::string& what, const Names& devices) const {
  const Answer answer = ask("POST", "/v1/" + what, Json{{"devices", devices}}.dump());
  if (answer.status != kDone) throw std::runtime_error(what + ": " + answer.body);
}

void AgentApi::abort(const Names& devices) const { must("abort", devices); }

void AgentApi::refresh(const Names& devices) const { must("refresh", devices); }

std::map<std::string, DeviceState> AgentApi::devices() const {
  const Answer answer = ask("GET", "/v1/devices", "");
  if (answer.status != kDone) throw std::runtime_error("status: " + answer.body);
  std::map<std::string, DeviceState> devices;
  for (const Json& item : Json::parse(answer.body)) {
    devices[item.at("name")] = {.node = item.at("node"),
                                .volume = item.at("volume"),
                                .tid = item.at("tid"),
                                .settled = item.at("settled"),
                                .dirty_bytes = item.at("dirty_bytes"),
                                .text = item.dump()};
  }
  return devices;
}

std::string AgentApi::commit(const Names& devices) const {
  const Answer answer = ask("POST", "/v1/commit", Json{{"devices", devices}}.dump());
  if (answer.status == kConflict) return {};
  if (answer.status != kDone) throw std::runtime_error("commit: " + answer.body);
  const Json reply = Json::parse(answer.body);
  if (!reply.at("tid").is_string()) throw std::runtime_error("commit stored nothing");
  return reply.at("tid");
}

}  // namespace zbig::race
