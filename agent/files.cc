// SPDX-License-Identifier: BSD-3-Clause
#include "agent/files.h"

#include <cerrno>
#include <filesystem>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "zodb/error.h"

namespace zbig {
namespace {

void write_all(int fd, const std::string& text, const std::string& path) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_errno("write " + path, errno);
    done += static_cast<std::size_t>(n);
  }
}

}  // namespace

std::string read_small_file(const std::string& path, std::size_t limit) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) throw_errno("open " + path, errno);
  std::string text(limit + 1, '\0');
  std::size_t length = 0;
  while (length < text.size()) {
    const ssize_t n = ::read(fd.get(), text.data() + length, text.size() - length);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_errno("read " + path, errno);
    if (n == 0) break;
    length += static_cast<std::size_t>(n);
  }
  if (length > limit) throw Failed(path + ": longer than " + std::to_string(limit) + " bytes");
  text.resize(length);
  return text;
}

void write_file_atomically(const std::string& path, const std::string& text) {
  const std::string temporary = path + ".new";
  {
    const Fd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!fd) throw_errno("create " + temporary, errno);
    write_all(fd.get(), text, temporary);
    if (::fsync(fd.get()) != 0) throw_errno("fsync " + temporary, errno);
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) throw_errno("rename to " + path, errno);
  sync_directory(std::filesystem::path(path).parent_path());
}

void write_over_file(const std::string& path, const std::string& text) {
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  if (!fd) throw_errno("open " + path, errno);
  struct stat found = {};
  if (::fstat(fd.get(), &found) != 0) throw_errno("stat " + path, errno);
  const auto size = static_cast<std::size_t>(found.st_size);
  if (text.size() >= size) return write_all(fd.get(), text, path);
  std::string padded = text;
  padded.resize(size - 1, ' ');
  write_all(fd.get(), padded + "\n", path);
}

void make_directories(const std::string& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) == 0) return;
  if (errno == ENOENT) {
    const std::string parent = std::filesystem::path(path).parent_path();
    if (!parent.empty() && parent != path) {
      make_directories(parent, mode);
      if (::mkdir(path.c_str(), mode) == 0) return;
    }
  }
  struct stat found = {};
  const int error = errno;
  if (error == EEXIST && ::stat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode)) return;
  throw_errno("make the folder " + path, error == EEXIST ? ENOTDIR : error);
}

void make_private_directory(const std::string& path) {
  make_directories(path, 0700);
  struct stat found = {};
  if (::stat(path.c_str(), &found) != 0) throw_errno("stat " + path, errno);
  if (found.st_uid != ::geteuid()) {
    throw Busy("the folder " + path + " belongs to user " + std::to_string(found.st_uid));
  }
}

void remove_tree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) throw_errno("remove " + path, error.value());
}

void sync_directory(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) throw_errno("open " + path, errno);
  if (::fsync(fd.get()) != 0) throw_errno("fsync " + path, errno);
}

Fd try_lock_file(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd) throw_errno("open " + path, errno);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
  if (errno != EWOULDBLOCK) throw_errno("lock " + path, errno);
  return {};
}

std::string canonical_path(const std::string& path) {
  std::error_code error;
  auto result = std::filesystem::weakly_canonical(std::filesystem::absolute(path), error);
  if (error) throw_errno("find " + path, error.value());
  return result;
}

}  // namespace zbig
