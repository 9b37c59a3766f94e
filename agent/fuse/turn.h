// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "agent/fd.h"

// Turn: among all workers, one at a time does a thing that may wait in the kernel for the server.
//
// The problem. Whoever is in fsync(2) stays there until the server answers, also when the agent
// that asked for it has long gone. Agents that come and go while a server is stuck would leave a
// worker each, and in the end a live device would refuse the next agent for having too many.
//
// T1  At most one worker for each Kind is in the kernel. The others wait here, and only as long as
//     their client does.
// T2  A worker that ends, however, has had its turn: it is a lock of the process (fcntl(2)).

namespace zbig::fuse {

class Turn {
 public:
  enum Kind { kSync, kInvalidate };

  // What all workers inherit. Throws Failed.
  static Fd make_file();

  // Waits for the turn; throws Unavailable when `client` is closed first.
  Turn(int file, Kind kind, const Fd& client);
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  ~Turn();

 private:
  bool set(short type) const;
  const int file_;
  const Kind kind_;
};

}  // namespace zbig::fuse
