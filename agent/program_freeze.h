// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <sys/types.h>

#include "agent/fd.h"

// ProgramFreeze: programs, or the file systems on a device, stopped for the moment in which a
// commit takes what they wrote.
//
// The problem. A commit takes the pages of a device one after the other, while programs go on
// writing to them: what it takes may never have been there at one time. A program that commits by
// itself, between two changes, needs nothing. Of others, those of a cgroup are stopped by the
// kernel's freezer, or a mounted file system is brought to a state that needs no repair (FIFREEZE).
//
// Who is stopped must go on again, whatever dies, and nothing that the commit waits for may be
// stopped. So the freeze is in the hands of a process of its own, the *holder*, forked for it:
//
// G1  The holder thaws as soon as the socket between it and the agent is closed: the agent has let
//     go, has died, or gave up waiting for a freeze that comes late (FIFREEZE waits for the server
//     without a limit, and no signal ends it).
// G2  It thaws by itself after kLongest. The agent learns of that when it lets go, and what it took
//     is then not called exact. The same if anybody else thaws it.
// G3  Before anything is frozen the mark, a file in the state folder, says what will be; it goes
//     when all is thawed. An agent that starts has thawed what a mark tells: of an agent that was
//     killed together with its holder (freeze_mark.h).
// G4  What is frozen already is somebody else's: a cgroup stays so afterwards, for a file system it
//     is an error.
//
// Threads: one.

namespace zbig {

enum class FreezeKind { kNone, kFileSystems, kCgroup };

struct FreezeChoice {
  FreezeKind kind = FreezeKind::kNone;
  std::string cgroup;  // an absolute path
};
// "none", "fs", "cgroup=PATH"; throws Invalid for anything else.
FreezeChoice parse_freeze(std::string_view text);

class ProgramFreeze {
 public:
  static constexpr std::chrono::milliseconds kCgroupPatience{5000};
  static constexpr std::chrono::milliseconds kFileSystemPatience{60000};
  static constexpr std::chrono::milliseconds kLongest{60000};

  // The cgroup, with those below it. `needed`: processes that the commit waits for; throws Invalid
  // if one of them is in it. Throws Busy if not all of it stops in time, Invalid for what is no
  // cgroup of version 2, Unsupported where this user may not do it.
  static ProgramFreeze of_cgroup(const std::string& path, std::span<const pid_t> needed,
                                 const std::string& mark);

  // The file systems that are mounted from the nodes, directly or by a loop device. Throws Invalid
  // if there is none on one of them, or if `state_directory` is on one. Waits as long as `go_on`
  // says so, here and in thaw(); then, and if it takes too long, throws Unavailable. Throws Busy
  // for one that is frozen already, Unsupported unless root.
  static ProgramFreeze of_file_systems(std::span<const std::string> nodes,
                                       const std::string& state_directory, const std::string& mark,
                                       const std::function<bool()>& go_on);

  ProgramFreeze(ProgramFreeze&&) = default;
  ~ProgramFreeze() { let_go(); }

  // Returns when all goes on again. Throws Unavailable if it was not stopped all the time (G2).
  void thaw();

 private:
  struct Target;
  ProgramFreeze(std::vector<Target> targets, std::string mark, std::chrono::milliseconds patience,
                const std::function<bool()>& go_on);
  bool let_go() noexcept;

  std::string mark_;
  std::function<bool()> go_on_;
  Fd holder_;  // the socket
};

}  // namespace zbig
