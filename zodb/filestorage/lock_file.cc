// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/filestorage/lock_file.h"

#include <algorithm>
#include <cerrno>
#include <string_view>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "zodb/error.h"

namespace zbig::fs {

namespace {

// The number in the lock file, for a message; empty if there is none.
std::string holder(int fd) {
  char text[32];
  const auto got = ::pread(fd, text, sizeof text, 0);
  const std::string_view content(text, got > 0 ? static_cast<std::size_t>(got) : 0);
  const auto first = content.find_first_of("0123456789");
  if (first == content.npos) return {};
  const auto digits = content.substr(first);
  return std::string(digits.substr(0, digits.find_first_not_of("0123456789")));
}

}  // namespace

LockFile::LockFile(const std::string& path, const std::string& database)
    : fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666)) {
  if (fd_ < 0) {
    const int error = errno;
    if (error == EACCES || error == EPERM || error == EROFS) {
      throw ReadOnly("cannot open " + database + " for writing: no permission to write " + path);
    }
    throw_errno("cannot open " + database + " for writing: cannot open " + path, error);
  }
  try {
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      const int error = errno;
      if (error != EWOULDBLOCK) throw_errno("cannot lock " + path, error);
      const auto pid = holder(fd_);
      throw Busy(database + " is in use: " + (pid.empty() ? "another process" : "process " + pid) +
                 " writes to it (lock file " + path + ")");
    }
    const auto content = " " + std::to_string(::getpid()) + "\n";
    if (::pwrite(fd_, content.data(), content.size(), 0) != static_cast<ssize_t>(content.size()) ||
        ::ftruncate(fd_, static_cast<off_t>(content.size())) != 0) {
      throw_errno("cannot write " + path, errno);
    }
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

LockFile::~LockFile() {
  ::flock(fd_, LOCK_UN);  // a forked child may hold the descriptor still
  ::close(fd_);
}

}  // namespace zbig::fs
