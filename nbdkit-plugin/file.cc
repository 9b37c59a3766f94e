// SPDX-License-Identifier: BSD-3-Clause
#include "nbdkit-plugin/file.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "zodb/error.h"

namespace zbig {
namespace {

// Calls `attempt` until it is not interrupted by a signal.
template <class F>
auto retry(F attempt) {
  for (;;) {
    const auto result = attempt();
    if (result != -1 || errno != EINTR) return result;
  }
}

struct stat status_of(const File& file) {
  struct stat status {};
  if (fstat(file.fd(), &status) != 0) throw_errno("stat " + file.path(), errno);
  return status;
}

}  // namespace

File::~File() {
  if (fd_ >= 0) close(fd_);
}

std::optional<File> File::open_if_there(const std::string& path, int flags) {
  const int fd = retry([&] { return ::open(path.c_str(), flags | O_CLOEXEC, 0600); });
  if (fd >= 0) return File(fd, path);
  if (errno == ENOENT) return std::nullopt;
  throw_errno("open " + path, errno);
}

File File::open(const std::string& path, int flags) {
  std::optional<File> file = open_if_there(path, flags);
  if (!file) throw_errno("open " + path, ENOENT);
  return std::move(*file);
}

void File::read(std::uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t got =
        retry([&] { return pread(fd_, out.data(), out.size(), static_cast<off_t>(offset)); });
    if (got < 0) throw_errno("read " + path_, errno);
    if (got == 0) throw Corrupt("read " + path_ + ": it ends at " + std::to_string(offset));
    out = out.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
}

void File::write(std::uint64_t offset, ByteView bytes) const {
  write(offset, std::span(&bytes, 1));
}

void File::write(std::uint64_t offset, std::span<const ByteView> parts) const {
  std::size_t part = 0;  // the first that is not wholly written, and how much of it is
  std::size_t done = 0;
  for (;;) {
    std::array<iovec, 4> batch{};
    std::size_t count = 0;
    for (std::size_t i = part; i < parts.size() && count < batch.size(); ++i) {
      const ByteView rest = parts[i].subspan(i == part ? done : 0);
      if (!rest.empty()) {
        batch[count++] = {const_cast<std::byte*>(rest.data()), rest.size()};
      }
    }
    if (count == 0) return;
    const ssize_t wrote = retry([&] {
      return pwritev(fd_, batch.data(), static_cast<int>(count), static_cast<off_t>(offset));
    });
    if (wrote < 0) throw_errno("write " + path_, errno);
    offset += static_cast<std::uint64_t>(wrote);
    for (auto left = static_cast<std::size_t>(wrote); left > 0;) {
      const std::size_t step = std::min(left, parts[part].size() - done);
      left -= step;
      done += step;
      if (done == parts[part].size()) {
        ++part;
        done = 0;
      }
    }
  }
}

void File::zero(std::uint64_t offset, std::uint64_t length) const {
  if (length == 0) return;
  const int result = retry([&] {
    return fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                     static_cast<off_t>(length));
  });
  if (result == 0) return;
  if (errno != EOPNOTSUPP) throw_errno("punch a hole into " + path_, errno);
  static constexpr std::array<std::byte, 64u << 10> kZeros{};
  while (length > 0) {
    const std::uint64_t step = std::min<std::uint64_t>(length, kZeros.size());
    write(offset, ByteView(kZeros).first(step));
    offset += step;
    length -= step;
  }
}

void File::allocate(std::uint64_t offset, std::uint64_t length) const {
  const int result = retry([&] {
    return fallocate(fd_, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                     static_cast<off_t>(length));
  });
  if (result != 0 && errno != EOPNOTSUPP) throw_errno("make room in " + path_, errno);
}

void File::datasync() const {
  if (retry([&] { return fdatasync(fd_); }) != 0) throw_errno("fdatasync " + path_, errno);
}

void File::sync() const {
  if (retry([&] { return fsync(fd_); }) != 0) throw_errno("fsync " + path_, errno);
}

std::uint64_t File::size() const { return static_cast<std::uint64_t>(status_of(*this).st_size); }

std::uint64_t File::bytes_on_disk() const {
  return static_cast<std::uint64_t>(status_of(*this).st_blocks) * 512;
}

void File::resize(std::uint64_t size) const {
  if (retry([&] { return ftruncate(fd_, static_cast<off_t>(size)); }) != 0) {
    throw_errno("resize " + path_ + " to " + std::to_string(size) + " bytes", errno);
  }
}

std::optional<std::pair<std::uint64_t, std::uint64_t>> File::next_data(std::uint64_t from,
                                                                       std::uint64_t end) const {
  const off_t data = lseek(fd_, static_cast<off_t>(from), SEEK_DATA);
  if (data < 0 && errno == ENXIO) return std::nullopt;
  if (data < 0) throw_errno("look for data in " + path_, errno);
  if (static_cast<std::uint64_t>(data) >= end) return std::nullopt;
  const off_t hole = lseek(fd_, data, SEEK_HOLE);
  if (hole < 0) throw_errno("look for a hole in " + path_, errno);
  return std::pair(static_cast<std::uint64_t>(data),
                   std::min(end, static_cast<std::uint64_t>(hole)));
}

}  // namespace zbig
