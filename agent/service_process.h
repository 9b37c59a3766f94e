// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <sys/types.h>

#include "agent/fd.h"

// A program that the agent starts and that outlives it: a server (nbdkit), a FUSE file
// (zbig-fuse).
//
// The problem. After a restart of the agent, however it ended, the programs of its predecessor
// must be found again, exactly: a second server on the same overlay would corrupt it, and a pid in
// a file may since be somebody else's. So each program inherits a descriptor of its *lock file*,
// locked. The lock is held precisely as long as the program lives, and nothing has to be cleaned up
// when it dies. The program writes its own pid into the file before it becomes itself.
//
// P1  At most one program holds a lock file; whoever holds the lock may start one.
// P2  While the lock is held by a program, the file has its pid (but for the moment between its
// fork
//     and its first write).
//
// Threads: one at a time, except for pid() and pidfd().

namespace zbig {

class ServiceProcess {
 public:
  // The program that holds the lock file, if any does. Waits up to a second for P2's moment to
  // pass; throws Busy if the file does not tell who holds it even then.
  static std::optional<ServiceProcess> find(const std::string& lock_path);

  // From now on each program gets a scope of systemd's (systemd.scope(5)) and is no part of the
  // agent's unit, which may be stopped or killed as a whole; docs/systemd.md. Of the machine's
  // systemd if we are root, otherwise of the user's. Before any thread.
  static void use_scopes();

  // Starts `command` (command[0] is looked up in PATH) in a session of its own, its standard output
  // and error appended to `log_path`. Throws Busy if the lock is held, Failed if there is no
  // process to be had. A program that cannot be executed shows as one that died at once; its log
  // says why.
  static ServiceProcess start(const std::string& lock_path, std::span<const std::string> command,
                              const std::string& log_path);

  pid_t pid() const { return pid_; }
  // Becomes readable when the program ends.
  int pidfd() const { return pidfd_.get(); }
  bool alive() const;
  // True if it ended in time.
  bool wait_end(std::chrono::milliseconds timeout) const;
  // SIGTERM, after `patience` SIGKILL; true if it has ended.
  bool stop(std::chrono::milliseconds patience) const;
  void kill() const;

 private:
  ServiceProcess(pid_t pid, Fd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}

  pid_t pid_;
  Fd pidfd_;
};

// The last line of a log file that is not empty; empty if there is none.
std::string last_line_of(const std::string& path);

}  // namespace zbig
