// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include <sys/types.h>

#include "agent/fd.h"
#include "agent/fuse/worker.h"

// One control connection: a JSON object a line each way (docs/fuse-control.md). It runs in a worker
// process, so a request may take as long as it takes; `status` on another connection is answered
// meanwhile.

namespace zbig::fuse {

// What does not change while the device is mounted.
struct DeviceFacts {
  std::string path;
  std::string uri;
  bool read_only = false;
  dev_t device = 0;
  pid_t pid = 0;   // of the serving process
  int turns = -1;  // Turn::make_file()
};

void serve_control_connection(Worker& worker, const Fd& client, const DeviceFacts& facts);

// Writes what is dirty and unmounts. Throws Busy while a program uses the device, Failed.
void leave_cleanly(const DeviceFacts& facts);

}  // namespace zbig::fuse
