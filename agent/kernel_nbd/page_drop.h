// SPDX-License-Identifier: BSD-3-Clause
//
// Dropping pages of a block device from the kernel's page cache, mapped ones included.
//
// Problem. When another client commits, pages of /dev/nbdX that are cached here are stale. The
// calls made for this (BLKFLSBUF, posix_fadvise) succeed and leave every mapped page as it was.
// What works on Linux 6.1 and 6.12 is a side effect: fallocate(PUNCH_HOLE | KEEP_SIZE) first takes
// the range out of the page cache and of all mappings, then finds that the device knows no
// write-zeroes and fails with EOPNOTSUPP (a read-only device: EPERM). The server is sent nothing.
// Since that order is no promise, drop_probe.h proves it once per agent and chooses among the
// methods below.
//
// Dirty pages. The kernel throws away dirty pages of the range without a word, unless another
// descriptor holds the device O_EXCL: then it keeps them and says EBUSY.
//
//   P1  With kKeep a page that holds a store the server has not seen is never dropped.
//   P2  Nothing is dropped of a device that is claimed (a mounted file system has its own idea of
//       what is in it). The claim is taken before the first page goes and kept until the last did,
//       so that nobody can mount in between.
//   P3  Ranges are whole pages: of a part of a page the kernel would zero the bytes in the cache.
#pragma once

#include <span>
#include <string>

#include "bigfile/extent.h"

namespace zbig {

enum class DropMethod {
  kPunchHole,  // as above
  kDiscard,    // BLKDISCARD: the server must be said to take trim, and must not take it (it answers
               // with an error, after the pages went), or trim would destroy what it serves
  kNone,       // this kernel cannot. (BLKBSZSET, which drops too, needs blocks below 4096.)
};

enum class DirtyPages { kKeep, kDiscard };

// Widens to pages, cuts at `size`, joins.
ExtentList whole_pages(std::span<const Extent> extents, std::uint64_t size);

// `device` is an O_RDWR descriptor of `node`, which is not claimed by this process. `pages` as of
// whole_pages. Returns the pages that are dirty and stayed. Waits for reads and writes of these
// pages that are under way. Busy: claimed (P2). Failed: the kernel did something unexpected, and
// pages may be stale. Unsupported: the method cannot keep dirty pages, or is kNone.
ExtentList drop_pages(int device, const std::string& node, const ExtentList& pages,
                      DropMethod method, DirtyPages dirty);

// Of `pages`, those that hold other bytes than the server shows, although no program is writing to
// them at this moment: they are old. (A page that is being written to is dirty, and dirty pages are
// written to the server here first.) Reads them all; waits for the server.
ExtentList old_pages(const std::string& node, const ExtentList& pages);

}  // namespace zbig
