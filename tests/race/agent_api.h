// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

// AgentApi: the few requests of docs/api.md that the race makes. Any thread.

namespace zbig::race {

using Names = std::vector<std::string>;

struct DeviceState {
  std::string node;
  std::string volume;
  std::string tid;
  bool settled = false;
  std::uint64_t dirty_bytes = 0;
  std::string text;  // the whole answer
};

class AgentApi {
 public:
  explicit AgentApi(std::string socket) : socket_(std::move(socket)) {}

  // Of all devices, in one answer.
  std::map<std::string, DeviceState> devices() const;
  // The tid; empty for a conflict.
  std::string commit(const Names& devices) const;
  void abort(const Names& devices) const;
  void refresh(const Names& devices) const;

 private:
  struct Answer;
  // Throws std::runtime_error if there is no answer within two minutes.
  Answer ask(const std::string& method, const std::string& path, const std::string& body) const;
  void must(const std::string& what, const Names& devices) const;

  std::string socket_;
};

}  // namespace zbig::race
