// SPDX-License-Identifier: BSD-3-Clause

#include "cli/output.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bigfile/extent.h"
#include "cli/interrupt.h"
#include "cli/verb.h"

namespace zbig {
namespace {

bool all_zero(ByteView bytes) {
  static constexpr std::array<std::byte, kPageSize> kZeros{};
  return std::memcmp(bytes.data(), kZeros.data(), bytes.size()) == 0;
}

// The permissions that open(2) would give to a new file.
mode_t default_mode() {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return 0666 & ~mask;
}

}  // namespace

Output::Output(const std::string& file, std::uint64_t size) {
  if (file == "-") {
    open_stdout();
  } else {
    open_file(file);
  }
  // At once, so that a file system which cannot hold the size says so before anything is read.
  if (sparse_ && ::ftruncate(fd_, static_cast<off_t>(base_ + size)) != 0) {
    const int error = errno;
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
    if (owned_) ::close(fd_);
    throw_errno("make " + name_ + " " + std::to_string(size) + " bytes long", error);
  }
}

void Output::open_stdout() {
  name_ = "standard output";
  fd_ = STDOUT_FILENO;
  if (::isatty(fd_) == 1) {
    throw AdvisedError(ErrorCode::kInvalid, "the bytes of a volume do not belong on a terminal",
                       "write them to a file with -o FILE, or into a pipe");
  }
  struct stat status {};
  if (::fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) return;
  const off_t at = ::lseek(fd_, 0, SEEK_CUR);
  // Past the end nothing is in the way of a hole.
  sparse_ = at == status.st_size && (::fcntl(fd_, F_GETFL) & O_APPEND) == 0;
  if (sparse_) base_ = static_cast<std::uint64_t>(at);
}

void Output::open_file(const std::string& file) {
  name_ = file;
  owned_ = true;
  struct stat status {};
  const bool exists = ::stat(file.c_str(), &status) == 0;
  if (!exists && errno != ENOENT) throw_errno("write " + file, errno);
  if (exists && S_ISDIR(status.st_mode)) throw Invalid("write " + file + ": it is a directory");
  if (exists && !S_ISREG(status.st_mode)) {
    fd_ = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ < 0) throw_errno("write " + file, errno);
    return;
  }
  // A symbolic link stays one: what it points to is replaced.
  target_ = exists ? std::filesystem::canonical(file).string() : file;
  temporary_ = target_ + ".zbig-XXXXXX";
  fd_ = ::mkostemp(temporary_.data(), O_CLOEXEC);
  if (fd_ < 0) throw_errno("write " + file, errno);
  if (::fchmod(fd_, exists ? status.st_mode & 07777 : default_mode()) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    ::close(fd_);
    throw_errno("set the permissions of " + file, error);
  }
  sparse_ = true;
}

Output::~Output() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  if (owned_) ::close(fd_);
}

void Output::fail(const std::string& what) const {
  const int error = errno;
  const std::string sentence = what + " " + name_ + " at " + std::to_string(position_);
  // The reader of a pipe went away: no storage is unavailable, which is what throw_errno would say.
  if (error == EPIPE) throw Failed(sentence + ": " + std::generic_category().message(EPIPE));
  throw_errno(sentence, error);
}

void Output::write_at_position(ByteView bytes) {
  while (!bytes.empty()) {
    check_interrupt();
    const ssize_t written =
        sparse_ ? ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(base_ + position_))
                : ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("write");
    position_ += static_cast<std::uint64_t>(written);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void Output::write(ByteView bytes) {
  if (!sparse_) return write_at_position(bytes);
  // O2: runs of pages of the file that are not zero are written, the others skipped.
  std::size_t run = 0;  // start of the run that is not written yet
  std::size_t at = 0;
  const auto flush = [&](std::size_t end) {
    if (end > run) write_at_position(bytes.subspan(run, end - run));
  };
  while (at < bytes.size()) {
    const std::uint64_t place = position_ + (at - run);
    const std::size_t page =
        std::min<std::size_t>(kPageSize - (base_ + place) % kPageSize, bytes.size() - at);
    if (all_zero(bytes.subspan(at, page))) {
      flush(at);
      position_ += page;
      run = at + page;
    }
    at += page;
  }
  flush(bytes.size());
}

void Output::zeros(std::uint64_t length) {
  if (sparse_) {
    position_ += length;
    return;
  }
  const Bytes block(static_cast<std::size_t>(std::min<std::uint64_t>(length, 1u << 20)));
  while (length > 0) {
    const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(length, block.size()));
    write_at_position(ByteView(block).first(part));
    length -= part;
  }
}

void Output::finish() {
  if (sparse_ && !owned_ && ::lseek(fd_, static_cast<off_t>(base_ + position_), SEEK_SET) < 0) {
    fail("seek in");
  }
  // A pipe or a terminal-like device has nothing to sync.
  if (::fdatasync(fd_) != 0 && errno != EINVAL && errno != EROFS && errno != ENOTSUP) fail("sync");
  if (temporary_.empty()) return;
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail("rename to");
  temporary_.clear();
}

}  // namespace zbig
