// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

// The file that the device is mounted over, as the mount table and mount(2) see it. Nothing here
// waits for the file system that is mounted, unless it says so.

namespace zbig::fuse {

// Makes `path` an empty file that can be mounted over; true if it was made. A mount that a dead
// zbig-fuse left there is taken away. Throws Invalid (it is something else), Busy (something is
// mounted there).
bool prepare_mount_point(const std::string& path);

bool is_mounted(const std::string& path);

// Unmounts, with or without root. `lazily`: even if it is in use, and at once. Otherwise it throws
// Busy then, and may wait for the file system to write its pages. Throws Failed.
void unmount(const std::string& path, bool lazily);

}  // namespace zbig::fuse
