// SPDX-License-Identifier: BSD-3-Clause
#include "agent/fuse/kernel_file.h"

#include <cerrno>
#include <fstream>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "agent/fd.h"
#include "zodb/error.h"

namespace zbig::fuse {
namespace {

// Not what the kernel remembers of an earlier question.
struct statx look_at(const std::string& path) {
  struct statx found = {};
  if (statx(AT_FDCWD, path.c_str(), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &found) != 0) {
    throw_errno("look at " + path, errno);
  }
  return found;
}

dev_t device_of(const struct statx& found) {
  return makedev(found.stx_dev_major, found.stx_dev_minor);
}

void check_device(const std::string& path, dev_t found, dev_t expected) {
  if (found != expected) throw Failed(path + " is not the device any more: it was unmounted");
}

Fd open_device(const std::string& path, dev_t device) {
  Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) throw_errno("open " + path, errno);
  struct stat found = {};
  if (fstat(file.get(), &found) != 0) throw_errno(path, errno);
  check_device(path, found.st_dev, device);
  return file;
}

}  // namespace

dev_t device_of(const std::string& path) { return device_of(look_at(path)); }

void make_kernel_take_size(const std::string& path, dev_t device, std::uint64_t size) {
  const struct statx before = look_at(path);
  check_device(path, device_of(before), device);
  // Without a write-back cache (a read-only device), having asked was enough.
  if (before.stx_size == size) return;
  if (truncate(path.c_str(), static_cast<off_t>(size)) != 0) throw_errno("size of " + path, errno);
  const std::uint64_t taken = look_at(path).stx_size;
  if (taken != size) {
    throw Failed(path + ": the kernel says " + std::to_string(taken) + " bytes instead of " +
                 std::to_string(size));
  }
}

void sync_file(const std::string& path, dev_t device) {
  const Fd file = open_device(path, device);
  if (fsync(file.get()) != 0) throw_errno("sync " + path, errno);
}

void wait_for_writes(const std::string& path, dev_t device) {
  Fd file = open_device(path, device);
  if (close(file.release()) != 0) throw_errno("write pages of " + path, errno);
}

void tune_kernel(dev_t device, unsigned read_ahead_kb) {
  const std::string folder =
      "/sys/class/bdi/" + std::to_string(major(device)) + ":" + std::to_string(minor(device)) + "/";
  std::ofstream(folder + "read_ahead_kb") << read_ahead_kb;
  std::ofstream(folder + "strict_limit") << 0;  // Linux 6.2 and later
  std::ofstream(folder + "max_ratio") << 100;
}

}  // namespace zbig::fuse
