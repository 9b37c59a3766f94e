// SPDX-License-Identifier: BSD-3-Clause
//
// Errand: a call into the kernel that may never return, made by a process of its own.
//
// An fsync of a device whose server does not answer waits in the kernel, where no signal reaches
// it. A process does not end while one of its threads is in there, and keeps the locks that the
// next agent needs. A child that has nothing of the agent's may stay behind.
//
//   E1  The child has two descriptors: of the device, and of a pipe. No lock, no socket.
//   E2  Nobody waits for a child that was left behind. It is buried at the next errand, or by init.
#pragma once

#include <functional>
#include <stop_token>
#include <string>

#include "agent/fd.h"

namespace zbig {

// What `call`, made in a child that has `fd`, returns; throws what it throws, as an Error of the
// same code. Unavailable as soon as `stop` is asked for: the call goes on.
std::string run_apart(int fd, const std::function<std::string()>& call,
                      const std::stop_token& stop);

// The last close of a device writes what is dirty, and waits as fsync does. A child has it open
// until the descriptor that is returned is closed, and closes it then, however long that takes.
Fd close_apart(int fd);

}  // namespace zbig
