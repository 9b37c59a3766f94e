// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "zodb/bytes.h"

namespace zbig {

// An open file and its path, which every error names. Positional reads and writes of whole buffers;
// any thread. Everything throws what throw_errno gives for the errno.
class File {
 public:
  File() = default;
  // Takes over an open descriptor.
  File(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}
  File& operator=(File&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(path_, other.path_);
    return *this;
  }
  ~File();

  // open(2) with O_CLOEXEC; a file that it makes has mode 0600.
  static File open(const std::string& path, int flags);
  // Nothing if there is no such file.
  static std::optional<File> open_if_there(const std::string& path, int flags);

  int fd() const { return fd_; }
  const std::string& path() const { return path_; }

  // Throws Corrupt if the file ends before `out` does.
  void read(std::uint64_t offset, std::span<std::byte> out) const;
  void write(std::uint64_t offset, ByteView bytes) const;
  // The parts one after another, in as few calls as the system allows.
  void write(std::uint64_t offset, std::span<const ByteView> parts) const;
  // The range reads as zeros and takes no space, where the file system can do that.
  void zero(std::uint64_t offset, std::uint64_t length) const;
  // Room for the range, within the file's size, if the file system can do that. Nothing of the
  // content changes.
  void allocate(std::uint64_t offset, std::uint64_t length) const;
  void datasync() const;
  void sync() const;

  std::uint64_t size() const;
  std::uint64_t bytes_on_disk() const;
  void resize(std::uint64_t size) const;

  // The first run of [from, end) that is not a hole, as [first, second); nothing if all is holes.
  std::optional<std::pair<std::uint64_t, std::uint64_t>> next_data(std::uint64_t from,
                                                                   std::uint64_t end) const;

 private:
  int fd_ = -1;
  std::string path_;
};

}  // namespace zbig
