// SPDX-License-Identifier: BSD-3-Clause

#include "cli/input.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/interrupt.h"

namespace zbig {
namespace {

constexpr std::size_t kSpoolStep = 1u << 20;

// A file without a name.
int open_temporary() {
  const char* folder = std::getenv("TMPDIR");  // NOLINT(concurrency-mt-unsafe): no other thread yet
  std::string name = std::string(folder != nullptr && *folder ? folder : "/tmp") + "/zbig-XXXXXX";
  const int fd = ::mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) throw_errno("make a temporary file " + name, errno);
  ::unlink(name.c_str());
  return fd;
}

// One read(2), through interruptions; 0 at the end.
std::size_t read_some(int fd, std::span<std::byte> out, const std::string& name) {
  for (;;) {
    check_interrupt();
    const ssize_t count = ::read(fd, out.data(), out.size());
    if (count >= 0) return static_cast<std::size_t>(count);
    if (errno != EINTR) throw_errno("read " + name, errno);
  }
}

}  // namespace

Input::Input(const std::string& file) : name_(file == "-" ? "standard input" : file) {
  fd_ = file == "-" ? ::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0)
                    : ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) throw_errno("read " + name_, errno);
  try {
    measure();
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

Input::~Input() { ::close(fd_); }

void Input::measure() {
  struct stat status {};
  if (::fstat(fd_, &status) != 0) throw_errno("read " + name_, errno);
  if (S_ISDIR(status.st_mode)) throw Invalid("read " + name_ + ": it is a directory");
  // Standard input may be a file that somebody has read a part of: then it is what is left.
  const bool from_start = ::lseek(fd_, 0, SEEK_CUR) == 0;
  if ((S_ISREG(status.st_mode) || S_ISBLK(status.st_mode)) && from_start) {
    const off_t end = ::lseek(fd_, 0, SEEK_END);
    if (end < 0) throw_errno("find the size of " + name_, errno);
    size_ = static_cast<std::uint64_t>(end);
    return;
  }
  spool();
}

void Input::spool() {
  const int copy = open_temporary();
  const int from = std::exchange(fd_, copy);
  Bytes buffer(kSpoolStep);
  try {
    while (const std::size_t count = read_some(from, buffer, name_)) {
      for (std::size_t at = 0; at < count;) {
        const ssize_t written = ::write(copy, buffer.data() + at, count - at);
        if (written < 0 && errno != EINTR) throw_errno("keep a copy of " + name_, errno);
        if (written > 0) at += static_cast<std::size_t>(written);
      }
      size_ += count;
    }
  } catch (...) {
    ::close(from);
    throw;
  }
  ::close(from);
}

}  // namespace zbig
