// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <string>

#include <sys/types.h>

// The command line of zbig-fuse; docs/man/zbig-fuse.pod explains every option.

namespace zbig::fuse {

struct Options {
  std::string uri;      // of the NBD export
  std::string path;     // absolute; becomes the device
  std::string control;  // absolute path of the control socket; empty: none
  std::string log;      // absolute; empty: stderr, or nowhere once in background
  bool read_only = false;
  bool foreground = false;
  bool allow_other = false;  // other users may use the device, as its mode says
  mode_t mode = 0600;
  unsigned connections = 2;               // to a server that allows several
  unsigned read_ahead_kb = 512;           // asked of the kernel; only root may raise it
  std::chrono::seconds dead_timeout{60};  // 0: wait for ever
};

// Throws Invalid (usage). Prints and exits with 0 for --help and --version.
Options parse_options(int argc, char** argv);

}  // namespace zbig::fuse
