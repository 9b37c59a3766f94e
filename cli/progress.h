// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

// A progress bar on standard error, if that is a terminal, for what takes over a second.
//
//   export /A  [=========>          ]  46%  1.2 GiB of 2.6 GiB  310.5 MiB/s
//
// It is wiped when it is destroyed, so that what is printed afterwards stands on a clean line.

namespace zbig {

class Progress {
 public:
  explicit Progress(std::string title);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Any number of times; draws ten times a second at most.
  void update(std::uint64_t done, std::uint64_t total);

 private:
  using Clock = std::chrono::steady_clock;

  std::string title_;
  bool terminal_ = false;
  bool drawn_ = false;
  Clock::time_point start_ = Clock::now();
  Clock::time_point next_ = start_ + std::chrono::seconds(1);
};

}  // namespace zbig
