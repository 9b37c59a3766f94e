// SPDX-License-Identifier: BSD-3-Clause
#include "tests/race/device_file.h"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <system_error>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace zbig::race {
namespace {

[[noreturn]] void throw_system_error(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

void* map(const Fd& file, std::size_t size, bool writable, const std::string& node) {
  const int rights = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* start = mmap(nullptr, size, rights, MAP_SHARED, file.get(), 0);
  if (start == MAP_FAILED) throw_system_error("map " + node);
  return start;
}

}  // namespace

const char* name_of(Way way) {
  switch (way) {
    case Way::kRead:
      return "read";
    case Way::kMapping:
      return "mapping";
    case Way::kLocked:
      return "locked mapping";
    case Way::kDirect:
      return "O_DIRECT";
  }
  return "";
}

DeviceFile::DeviceFile(const std::string& node, std::size_t size, bool writable)
    : node_(node),
      size_(size),
      file_(open(node.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC)),
      direct_(open(node.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_DIRECT)) {
  if (!file_ || !direct_) throw_system_error("open " + node);
  map_ = map(file_, size, writable, node);
  locked_ = map(file_, size, writable, node);
  void* buffer = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (buffer == MAP_FAILED) throw_system_error("memory");
  buffer_ = static_cast<std::byte*>(buffer);
}

DeviceFile::~DeviceFile() {
  munmap(map_, size_);
  munmap(locked_, size_);
  munmap(buffer_, kPage);
}

void DeviceFile::lock(std::uint64_t offset) {
  char* page = static_cast<char*>(locked_) + offset / kPage * kPage;
  if (mlock(page, kPage) != 0) throw_system_error("lock a page of " + node_);
}

Word DeviceFile::read(std::uint64_t offset, Way way) {
  if (way == Way::kMapping || way == Way::kLocked) {
    char* start = static_cast<char*>(way == Way::kLocked ? locked_ : map_);
    auto* place = reinterpret_cast<std::uint64_t*>(start + offset);
    return {std::atomic_ref(*place).load()};
  }
  Word word;
  if (way == Way::kDirect) {
    std::memcpy(&word, read_page(offset / kPage, way) + offset % kPage, sizeof word);
  } else if (pread(file_.get(), &word, sizeof word, static_cast<off_t>(offset)) != sizeof word) {
    throw_system_error("read " + node_);
  }
  return word;
}

const std::byte* DeviceFile::read_page(std::uint64_t page, Way way) {
  const Fd& fd = way == Way::kDirect ? direct_ : file_;
  if (pread(fd.get(), buffer_, kPage, static_cast<off_t>(page * kPage)) != kPage) {
    throw_system_error("read " + node_);
  }
  return buffer_;
}

void DeviceFile::write(std::uint64_t offset, Word word, Way way) {
  if (way == Way::kMapping || way == Way::kLocked) {
    char* start = static_cast<char*>(way == Way::kLocked ? locked_ : map_);
    auto* place = reinterpret_cast<std::uint64_t*>(start + offset);
    std::atomic_ref(*place).store(word.value);
    return;
  }
  if (way == Way::kRead) {
    if (pwrite(file_.get(), &word, sizeof word, static_cast<off_t>(offset)) != sizeof word) {
      throw_system_error("write " + node_);
    }
    return;
  }
  const std::uint64_t page = offset / kPage;
  read_page(page, Way::kDirect);
  std::memcpy(buffer_ + offset % kPage, &word, sizeof word);
  if (pwrite(direct_.get(), buffer_, kPage, static_cast<off_t>(page * kPage)) != kPage) {
    throw_system_error("write " + node_);
  }
}

void DeviceFile::sync() {
  if (fsync(file_.get()) != 0) throw_system_error("sync " + node_);
}

}  // namespace zbig::race
