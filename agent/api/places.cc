// SPDX-License-Identifier: BSD-3-Clause
#include "agent/api/places.h"

#include <cstdlib>

#include <unistd.h>

namespace zbig {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

std::string default_agent_socket() {
  if (::geteuid() == 0) return "/run/zbig/zbigd.sock";
  const std::string runtime = environment("XDG_RUNTIME_DIR");
  if (!runtime.empty()) return runtime + "/zbig/zbigd.sock";
  return "/tmp/zbig-" + std::to_string(::geteuid()) + "/zbigd.sock";
}

std::string default_state_directory() {
  if (::geteuid() == 0) return "/var/lib/zbig";
  const std::string state = environment("XDG_STATE_HOME");
  return (state.empty() ? environment("HOME") + "/.local/state" : state) + "/zbig";
}

}  // namespace zbig
