// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <vector>

#include "agent/fd.h"

namespace zbig {

struct Mount {
  std::string device;   // "MAJOR:MINOR" of the file system: its identity
  std::string escaped;  // the mount point as /proc/self/mountinfo has it, in one word
  std::string mount_point;
  std::string type;
  std::string source;
};

// The lines of /proc/self/mountinfo; what is no such line is left out.
std::vector<Mount> parse_mountinfo(const std::string& text);

// A path in which the kernel wrote blanks, newlines and backslashes as \ooo.
std::string unescaped(const std::string& escaped);

// Each file system once that is mounted, where this process can see it, from the block device
// `node`, or from a loop device over the file or block device `node`.
std::vector<Mount> mounts_from(const std::string& node);

// The root of the mount. Throws Failed, NotFound; Busy if something else is mounted above it.
Fd open_mount(const Mount& mount);

}  // namespace zbig
