// SPDX-License-Identifier: BSD-3-Clause
#include "agent/kernel_nbd/page_drop.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/fd.h"
#include "zodb/error.h"

namespace zbig {
namespace {

// Opens `node` so that nobody can mount or format it; it must be the device that `device` is.
Fd claim(const std::string& node, int device, int access) {
  Fd fd(::open(node.c_str(), access | O_EXCL | O_CLOEXEC));
  if (!fd && errno == EBUSY) {
    throw Busy("drop pages of " + node + ": it is mounted or claimed by another program");
  }
  if (!fd) throw_errno("open " + node, errno);
  struct stat ours {
  }, theirs{};
  if (::fstat(fd.get(), &ours) != 0 || ::fstat(device, &theirs) != 0 ||
      ours.st_rdev != theirs.st_rdev) {
    throw Failed("drop pages of " + node + ": the node is another device than at attach");
  }
  return fd;
}

int punch(int fd, const Extent& range) {
  const int result =
      ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(range.offset),
                  static_cast<off_t>(range.length));
  // With write-zeroes unknown to the device (KernelDevice K3) success cannot come from the server.
  if (result == 0 || errno == EOPNOTSUPP || errno == EPERM) return 0;
  return errno;
}

int discard(int fd, const Extent& range) {
  std::array<std::uint64_t, 2> ioctl_range = {range.offset, range.length};
  // EIO: the server refused the trim, as it shall.
  if (::ioctl(fd, BLKDISCARD, ioctl_range.data()) == 0 || errno == EIO) return 0;
  return errno;
}

// Drops [range], or finds by halves which of its pages stay.
void drop_range(int fd, const std::string& node, const Extent& range, DropMethod method,
                ExtentList& kept) {
  const int error = method == DropMethod::kPunchHole ? punch(fd, range) : discard(fd, range);
  if (error == 0) return;
  if (error != EBUSY) {
    throw_errno("drop " + std::to_string(range.length) + " bytes of pages at " +
                    std::to_string(range.offset) + " of " + node,
                error);
  }
  if (range.length <= kPageSize) {
    append_extent(kept, range.offset, range.length);
    return;
  }
  const std::uint64_t half = range.length / 2 / kPageSize * kPageSize;
  drop_range(fd, node, {range.offset, half}, method, kept);
  drop_range(fd, node, {range.offset + half, range.length - half}, method, kept);
}

}  // namespace

ExtentList old_pages(const std::string& node, const ExtentList& pages) {
  const Fd cache(::open(node.c_str(), O_RDONLY | O_CLOEXEC));
  const Fd server(::open(node.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  if (!cache || !server) throw_errno("open " + node, errno);
  struct Page {
    alignas(kPageSize) std::array<char, kPageSize> bytes;
    void read(const Fd& from, const std::string& node, std::uint64_t offset) {
      const ssize_t n = ::pread(from.get(), bytes.data(), kPageSize, static_cast<off_t>(offset));
      if (n < 0) throw_errno("read " + node, errno);
      if (n != kPageSize) throw Failed("read " + node + ": it is shorter than it was");
    }
  };
  const auto before = std::make_unique<Page>();
  const auto served = std::make_unique<Page>();
  const auto after = std::make_unique<Page>();
  ExtentList old;
  for (const Extent& extent : pages) {
    for (std::uint64_t at = extent.offset; at < extent.end(); at += kPageSize) {
      before->read(cache, node, at);
      served->read(server, node, at);
      after->read(cache, node, at);
      const bool written_to = before->bytes != after->bytes;
      if (!written_to && before->bytes != served->bytes) append_extent(old, at, kPageSize);
    }
  }
  return old;
}

ExtentList whole_pages(std::span<const Extent> extents, std::uint64_t size) {
  std::vector<Extent> pages;
  for (const Extent& extent : extents) {
    if (extent.length == 0 || extent.offset >= size) continue;
    // The end is cut before it is rounded, so that no sum can overflow.
    const std::uint64_t end = extent.offset + std::min(extent.length, size - extent.offset);
    const std::uint64_t first = extent.offset / kPageSize * kPageSize;
    const std::uint64_t last = std::min((end + kPageSize - 1) / kPageSize * kPageSize, size);
    pages.push_back({first, last - first});
  }
  return normalised(std::move(pages));
}

ExtentList drop_pages(int device, const std::string& node, const ExtentList& pages,
                      DropMethod method, DirtyPages dirty) {
  ExtentList kept;
  if (pages.empty()) return kept;
  if (method == DropMethod::kNone) {
    throw Unsupported("drop pages of " + node + ": this kernel has no way to do it");
  }
  // Called through a descriptor that is not the claim, the kernel keeps dirty pages; called through
  // the claim itself it throws them away.
  const bool keep = dirty == DirtyPages::kKeep;
  const Fd claimed = claim(node, device, keep ? O_RDONLY : O_RDWR);
  const int fd = keep ? device : claimed.get();
  for (const Extent& range : pages) drop_range(fd, node, range, method, kept);
  if (!keep && !kept.empty()) {
    throw Failed("drop " + std::to_string(total_length(kept)) + " bytes of dirty pages of " + node +
                 ": the kernel keeps them");
  }
  return kept;
}

}  // namespace zbig
