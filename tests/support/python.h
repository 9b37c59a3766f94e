// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/paths.h"

// The real ZODB, in the environments that tests/peers/setup makes ($PEERS), as a command that runs
// a script of tests/interop.

namespace zbig::test {

class Python {
 public:
  static constexpr const char* kMissing =
      "NOT TESTED: needs the real ZODB; tests/peers/setup DIR, then PEERS=DIR";

  // The interpreter of an environment: py2, py3.
  static std::optional<Python> find(const std::string& environment) {
    const char* const peers = std::getenv("PEERS");
    if (peers == nullptr) return std::nullopt;
    Python python;
    python.interpreter_ = std::string(peers) + "/" + environment + "/bin/python";
    if (!std::filesystem::exists(python.interpreter_)) return std::nullopt;
    return python;
  }

  // Runs a script to its end; what it printed. Throws with that if it failed.
  std::string run(const std::string& script, const std::vector<std::string>& arguments) const {
    std::string command =
        quoted(interpreter_) + " " + quoted(repository("tests/interop/" + script));
    for (const auto& argument : arguments) command += " " + quoted(argument);
    command += " 2>&1";
    FILE* const pipe = ::popen(command.c_str(), "r");
    if (pipe == nullptr) throw std::runtime_error("cannot run " + command);
    std::string output;
    std::array<char, 4096> part;
    for (std::size_t got; (got = std::fread(part.data(), 1, part.size(), pipe)) != 0;) {
      output.append(part.data(), got);
    }
    if (::pclose(pipe) != 0) throw std::runtime_error(command + " failed:\n" + output);
    return output;
  }

 private:
  static std::string quoted(const std::string& word) { return "'" + word + "'"; }

  std::string interpreter_;
};

}  // namespace zbig::test
