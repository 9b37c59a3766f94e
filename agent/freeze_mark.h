// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "agent/fd.h"

// FreezeMark: the file in the state folder that says what a commit has frozen (program_freeze.h,
// G3), for the agent that finds it after a death.
//
// M1  Thawing a file system may wait for its device, and so for a server that nobody starts until
//     the agent that thaws goes on. So thaw_marked() never waits: a process of its own does it.
// M2  That process, and a holder that its agent gave up, may end long after another freeze has
//     written its own mark: they remove the file that they know, not one that took its place.

namespace zbig {

class FreezeMark {
 public:
  FreezeMark() = default;
  // Writes it; each line is one of the two below.
  FreezeMark(std::string path, const std::string& lines);
  static std::string line_of_cgroup(const std::string& path);
  static std::string line_of_file_system(const std::string& escaped_mount_point);
  // The one that is there; false in a test if there is none.
  static FreezeMark found(std::string path);

  explicit operator bool() const { return static_cast<bool>(fd_); }
  int fd() const { return fd_.get(); }
  // M2. Does nothing but system calls, as is right in a copy of a process with threads.
  void remove() const noexcept;

 private:
  std::string path_;
  Fd fd_;
};

// Has all thawed that the mark at `path` tells, and the mark removed. Nothing if there is none.
void thaw_marked(const std::string& path) noexcept;

// Runs `work` in a copy of this process that nobody has to wait for, and that no signal but
// SIGKILL ends; `work` must not return. Throws Failed.
void start_process(const std::function<void()>& work);

// Closes all but `kept`, which are in order.
void close_all_but(const std::vector<int>& kept) noexcept;

}  // namespace zbig
