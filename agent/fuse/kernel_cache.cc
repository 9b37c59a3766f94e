// SPDX-License-Identifier: BSD-3-Clause
#include "agent/fuse/kernel_cache.h"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include "zodb/error.h"

namespace zbig::fuse {
namespace {

Fd clone_of(int served) {
  Fd device(open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  auto original = static_cast<std::uint32_t>(served);
  if (device && ioctl(device.get(), FUSE_DEV_IOC_CLONE, &original) == 0) return device;
  return Fd(fcntl(served, F_DUPFD_CLOEXEC, 0));
}

// iovec has no room for const, and writev does not write there.
iovec piece(const void* data, std::size_t size) { return {const_cast<void*>(data), size}; }

}  // namespace

KernelCache::KernelCache(int served) : device_(clone_of(served)) {
  if (!device_) throw_errno("/dev/fuse", errno);
}

void KernelCache::drop(std::uint64_t offset, std::uint64_t length) const {
  fuse_notify_inval_inode_out what = {};
  what.ino = FUSE_ROOT_ID;
  what.off = static_cast<std::int64_t>(offset);
  what.len = static_cast<std::int64_t>(length);
  fuse_out_header header = {};
  header.len = sizeof header + sizeof what;
  header.error = FUSE_NOTIFY_INVAL_INODE;
  const iovec pieces[] = {piece(&header, sizeof header), piece(&what, sizeof what)};
  while (writev(device_.get(), pieces, 2) < 0) {
    if (errno != EINTR)
      throw_errno("invalidate " + std::to_string(length) + " bytes at " + std::to_string(offset),
                  errno);
  }
}

void KernelCache::answer_for_the_dead(const std::atomic<bool>& done) const {
  std::vector<std::byte> request(FUSE_MIN_READ_BUFFER + (2u << 20));
  while (!done) {
    pollfd wait = {device_.get(), POLLIN, 0};
    poll(&wait, 1, 20);
    const ssize_t size = read(device_.get(), request.data(), request.size());
    if (size < static_cast<ssize_t>(sizeof(fuse_in_header))) {
      if (size < 0 && errno == ENODEV) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      continue;
    }
    fuse_in_header header = {};
    std::memcpy(&header, request.data(), sizeof header);
    if (header.opcode == FUSE_FORGET || header.opcode == FUSE_BATCH_FORGET ||
        header.opcode == FUSE_INTERRUPT) {
      continue;
    }
    fuse_out_header answer = {};
    answer.len = sizeof answer;
    answer.error = -EIO;
    answer.unique = header.unique;
    // If the kernel does not want it any more, that is as good.
    [[maybe_unused]] const ssize_t written = write(device_.get(), &answer, sizeof answer);
  }
}

}  // namespace zbig::fuse
