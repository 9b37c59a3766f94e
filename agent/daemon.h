// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <string>

#include "agent/fd.h"

// What zbigd is to whoever started it: a process in the background, or a service of systemd.
//
// Going into the background, so that whoever started it learns whether it works:
// The process forks before it does anything; the child starts up and reports through a pipe, and
// the parent waits for the report: nothing is an error too, for the child is dead then.

namespace zbig {

class Daemon {
 public:
  // In the child: returns. In the parent: does not return; exits with the child's report, its text
  // on stderr. Before any thread.
  static Daemon fork_to_background();
  Daemon() = default;  // stays in the foreground: reports go nowhere

  // Up and running. From now on stderr goes to `log_path`.
  void report_ready(const std::string& log_path);
  // It will not be. The parent prints the text and exits with the status.
  void report_failure(int status, const std::string& text);
  bool in_background() const { return static_cast<bool>(pipe_); }

 private:
  Fd pipe_;
};

// The service manager: systemd, or whatever else speaks sd_notify(3), or nobody.
class ServiceManager {
 public:
  // From the environment, where it leaves nothing of it for children. Before any thread.
  ServiceManager();

  // "READY=1", "WATCHDOG=1", "STOPPING=1".
  void notify(const std::string& message) const noexcept;
  // It ends this process if it gets no WATCHDOG=1 for that long; zero: it does not.
  std::chrono::milliseconds watchdog() const { return watchdog_; }

 private:
  std::string socket_;
  std::chrono::milliseconds watchdog_{0};
};

}  // namespace zbig
