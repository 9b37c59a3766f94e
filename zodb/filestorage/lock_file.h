// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

// The lock of the one process that writes: flock(2) on Data.fs.lock, as zc.lockfile takes it.
//
// The lock is the flock; the file's content, " PID\n", only tells a person who holds it. The file
// is never removed: a second process could hold a lock on the removed one.

namespace zbig::fs {

class LockFile {
 public:
  // Takes the lock, or throws Busy at once with the pid of who has it. `database` is for messages.
  LockFile(const std::string& path, const std::string& database);
  ~LockFile();
  LockFile(const LockFile&) = delete;
  LockFile& operator=(const LockFile&) = delete;

 private:
  int fd_;
};

}  // namespace zbig::fs
