// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <sys/uio.h>

#include "zodb/bytes.h"

// The file Data.fs, open: one descriptor, read with pread at any position by any thread.
//
// Payloads are read, not mapped: an I/O error or a file that somebody cut is then an error of this
// one read and not a SIGBUS of the process.
//
// A pack puts another file in the place of this one. What was opened stays readable under its old
// positions, so every open file has a generation, and a position means something only together with
// it.

namespace zbig::fs {

class DataFile {
 public:
  enum class Access { kRead, kWrite, kCreate };  // kCreate: and there must be no such file

  // Throws NotFound, Failed (EACCES and the like), Invalid (not a regular file).
  DataFile(const std::string& path, Access access, std::uint64_t generation);
  ~DataFile();
  DataFile(const DataFile&) = delete;
  DataFile& operator=(const DataFile&) = delete;

  const std::string& path() const { return path_; }
  std::uint64_t generation() const { return generation_; }
  std::uint64_t size() const;
  // Whether the path names another file by now. A path that names nothing is no other file: a pack
  // renames twice.
  bool replaced() const;
  // The path names nothing.
  bool gone() const;

  // Reads up to out.size() bytes; fewer only where the file ends.
  std::size_t read_some(std::uint64_t position, std::span<std::byte> out) const;
  // Throws Corrupt where the file ends before.
  void read(std::uint64_t position, std::span<std::byte> out) const;
  // The same into several buffers, which are used up as the array `into` is.
  void read(std::uint64_t position, std::span<iovec> into) const;

  // Writes everything; NoSpace, Failed. The elements of `from` are used up.
  void write(std::uint64_t position, std::span<iovec> from);
  void write(std::uint64_t position, ByteView bytes);
  void truncate(std::uint64_t size);
  void sync();  // fdatasync
  // A hint: the disk may begin with these bytes. sync() does not wait for so much then.
  void start_writing_back(std::uint64_t position, std::uint64_t size) noexcept;

  // Throws Corrupt "PATH at POSITION: WHAT".
  [[noreturn]] void corrupt(std::uint64_t position, const std::string& what) const;

 private:
  std::string path_;
  int fd_;
  std::uint64_t generation_;
  std::uint64_t device_ = 0;
  std::uint64_t inode_ = 0;
};

// Throws Corrupt unless the file begins with one of the two magics. An empty file is an empty
// database.
void check_magic(const DataFile& file);

// A look at a file through a moving window: small reads that lie close together cost one pread of
// up to 64 KiB, and what is skipped (payloads) is not read. For one thread.
class Window {
 public:
  explicit Window(const DataFile& file) : file_(file) {}

  // The `size` bytes at `position`, valid until the next call; fewer where the file ends.
  ByteView some(std::uint64_t position, std::size_t size);
  // Throws Corrupt where the file ends before.
  ByteView exactly(std::uint64_t position, std::size_t size);
  // Forgets what was read, to see what others have written since.
  void forget() { filled_ = 0; }

 private:
  static constexpr std::size_t kSmallest = 8192;
  static constexpr std::size_t kLargest = 64 << 10;  // stays in the processor's cache

  const DataFile& file_;
  std::uint64_t begin_ = 0;
  std::size_t filled_ = 0;
  std::size_t step_ = kSmallest;
  std::size_t capacity_ = 0;
  std::unique_ptr<std::byte[]> buffer_;
};

// Makes names in the folder of `path` durable: fsync of the folder.
void sync_folder_of(const std::string& path);

}  // namespace zbig::fs
