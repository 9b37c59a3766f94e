// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

#include "agent/fd.h"
#include "tests/race/actor.h"

// A Python program that takes part (python_writer.py), over a connection of its own to the
// database's server, and whoever moves it: it does as Writer does, without a device.

namespace zbig::race {

// A program that answers a line with a line.
class Answerer {
 public:
  explicit Answerer(const std::vector<std::string>& command);
  ~Answerer();
  Answerer(const Answerer&) = delete;
  Answerer& operator=(const Answerer&) = delete;

  // Throws std::runtime_error if it ended, or says nothing for two minutes.
  std::string ask(const std::string& line);

 private:
  pid_t pid_ = -1;
  Fd socket_;
};

class PythonWriter : public Actor {
 public:
  PythonWriter(const Arena& arena, const std::vector<std::string>& command, unsigned seed);
  void run(std::stop_token stop) override;
  std::string report() const override;
  bool took_part() const override { return commits_ + conflicts_ > 0; }

 private:
  void transaction();

  Answerer python_;
  std::uint64_t commits_ = 0;
  std::uint64_t conflicts_ = 0;
};

}  // namespace zbig::race
