// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/filestorage/data_file.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "zodb/error.h"
#include "zodb/filestorage/format.h"

namespace zbig::fs {

namespace {

int open_flags(DataFile::Access access) {
  // O_NONBLOCK: a FIFO in place of the file must not stop us in open(); a regular file ignores it.
  const int common = O_CLOEXEC | O_NONBLOCK;
  switch (access) {
    case DataFile::Access::kRead:
      return common | O_RDONLY;
    case DataFile::Access::kWrite:
      return common | O_RDWR;
    case DataFile::Access::kCreate:
      return common | O_RDWR | O_CREAT | O_EXCL;
  }
  broken_invariant("unknown Access", __FILE__, __LINE__);
}

// Drops the first `done` bytes of a scatter list and returns what is left of it.
std::span<iovec> advance(std::span<iovec> list, std::size_t done) {
  while (!list.empty() && done >= list.front().iov_len) {
    done -= list.front().iov_len;
    list = list.subspan(1);
  }
  if (!list.empty()) {
    list.front().iov_base = static_cast<std::byte*>(list.front().iov_base) + done;
    list.front().iov_len -= done;
  }
  return list;
}

int list_size(std::span<iovec> list) {
  return static_cast<int>(std::min<std::size_t>(list.size(), IOV_MAX));
}

}  // namespace

DataFile::DataFile(const std::string& path, Access access, std::uint64_t generation)
    : path_(path), fd_(::open(path.c_str(), open_flags(access), 0666)), generation_(generation) {
  if (fd_ < 0) {
    const int error = errno;
    if (error == EISDIR) throw Invalid(path + " is a directory, not a FileStorage's file");
    throw_errno("cannot open " + path, error);
  }
  struct stat info {};
  if (::fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) {
    const bool folder = S_ISDIR(info.st_mode);
    ::close(fd_);
    throw Invalid(
        path + (folder ? " is a directory, not a FileStorage's file" : " is not a regular file"));
  }
  device_ = info.st_dev;
  inode_ = info.st_ino;
}

DataFile::~DataFile() { ::close(fd_); }

std::uint64_t DataFile::size() const {
  struct stat info {};
  if (::fstat(fd_, &info) != 0) throw_errno("cannot stat " + path_, errno);
  return static_cast<std::uint64_t>(info.st_size);
}

bool DataFile::replaced() const {
  struct stat info {};
  if (::stat(path_.c_str(), &info) != 0) {
    if (errno == ENOENT) return false;
    throw_errno("cannot stat " + path_, errno);
  }
  return info.st_dev != device_ || info.st_ino != inode_;
}

bool DataFile::gone() const {
  struct stat info {};
  return ::stat(path_.c_str(), &info) != 0 && errno == ENOENT;
}

std::size_t DataFile::read_some(std::uint64_t position, std::span<std::byte> out) const {
  std::size_t done = 0;
  while (done < out.size()) {
    const auto got =
        ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(position + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("cannot read " + path_ + " at " + std::to_string(position), errno);
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

void DataFile::read(std::uint64_t position, std::span<std::byte> out) const {
  if (read_some(position, out) != out.size()) {
    corrupt(position, "the file ends before the " + std::to_string(out.size()) +
                          " bytes that should be here");
  }
}

void DataFile::read(std::uint64_t position, std::span<iovec> into) const {
  while (!into.empty()) {
    const auto got = ::preadv(fd_, into.data(), list_size(into), static_cast<off_t>(position));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("cannot read " + path_ + " at " + std::to_string(position), errno);
    if (got == 0) corrupt(position, "the file ends before the bytes that should be here");
    position += static_cast<std::uint64_t>(got);
    into = advance(into, static_cast<std::size_t>(got));
  }
}

void DataFile::write(std::uint64_t position, std::span<iovec> from) {
  while (!from.empty()) {
    const auto done = ::pwritev(fd_, from.data(), list_size(from), static_cast<off_t>(position));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) throw_errno("cannot write " + path_ + " at " + std::to_string(position), errno);
    position += static_cast<std::uint64_t>(done);
    from = advance(from, static_cast<std::size_t>(done));
  }
}

void DataFile::write(std::uint64_t position, ByteView bytes) {
  iovec one{const_cast<std::byte*>(bytes.data()), bytes.size()};
  write(position, std::span(&one, 1));
}

void DataFile::truncate(std::uint64_t size) {
  if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) {
    throw_errno("cannot truncate " + path_ + " to " + std::to_string(size), errno);
  }
}

void DataFile::sync() {
  if (::fdatasync(fd_) != 0) throw_errno("cannot sync " + path_, errno);
}

void DataFile::start_writing_back(std::uint64_t position, std::uint64_t size) noexcept {
  // A file system that cannot do it, or an error of the disk: sync() tells.
  ::sync_file_range(fd_, static_cast<off_t>(position), static_cast<off_t>(size),
                    SYNC_FILE_RANGE_WRITE);
}

void DataFile::corrupt(std::uint64_t position, const std::string& what) const {
  throw Corrupt(path_ + " at " + std::to_string(position) + ": " + what);
}

void check_magic(const DataFile& file) {
  std::byte magic[kMagicSize];
  const auto got = file.read_some(0, magic);
  if (got == 0) return;
  const auto text = as_text(ByteView(magic, got));
  if (text != kMagicPython3 && text != kMagicPython2) {
    file.corrupt(0, "not a FileStorage: it begins neither with FS30 nor with FS21");
  }
}

ByteView Window::some(std::uint64_t position, std::size_t size) {
  if (position < begin_ || position + size > begin_ + filled_) {
    // Small records one after the other are read in large steps; after a jump over a payload the
    // step is small again.
    const bool near = position >= begin_ && position - begin_ <= filled_ + step_;
    step_ = near ? std::min(step_ * 2, kLargest) : kSmallest;
    const auto wanted = std::max(step_, size);
    filled_ = 0;
    begin_ = position;
    if (capacity_ < wanted) {
      capacity_ = std::max(wanted, kLargest);
      buffer_ = std::make_unique_for_overwrite<std::byte[]>(capacity_);
    }
    filled_ = file_.read_some(position, std::span(buffer_.get(), wanted));
  }
  const auto offset = static_cast<std::size_t>(position - begin_);
  return ByteView(buffer_.get(), filled_).subspan(offset, std::min(size, filled_ - offset));
}

ByteView Window::exactly(std::uint64_t position, std::size_t size) {
  const auto bytes = some(position, size);
  if (bytes.size() != size) file_.corrupt(position, "the file ends inside a transaction");
  return bytes;
}

void sync_folder_of(const std::string& path) {
  auto folder = std::filesystem::path(path).parent_path().string();
  if (folder.empty()) folder = ".";
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw_errno("cannot open " + folder, errno);
  const int result = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  if (result != 0) throw_errno("cannot sync " + folder, error);
}

}  // namespace zbig::fs
