// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>

#include "agent/fd.h"

// KernelCache: tells the kernel to forget pages of the device, whoever has them mapped.
//
// FUSE has a message for it, FUSE_NOTIFY_INVAL_INODE. The kernel unmaps the pages from every
// process (mlock does not protect them), writes a dirty one to the server first, and drops them;
// the next touch of each asks the server again. A page that is just being read is waited for and
// then dropped, so an old answer on its way does no harm.
//
// K1  drop() may block until requests that it depends on are answered: pages being read, dirty ones
//     being written. So it is never called by the process that answers them. It is called in a
//     worker process (worker.h); a thread of the serving process would do until that process is
//     killed: the thread could not die before the page is unlocked, the kernel's device would stay
//     open with the thread, and nobody would be left to answer. Such a mount hangs for ever.
// K2  The worker has a clone of the kernel's device. When the serving process dies, the kernel ends
//     what that process had taken; what it had not taken yet, answer_for_the_dead() ends.

namespace zbig::fuse {

class KernelCache {
 public:
  // `served`: the descriptor of the serving process, which this one has inherited. Without the
  // right to open /dev/fuse (fusermount3 opened it for us) there is no clone, only K1.
  explicit KernelCache(int served);

  // Drops the pages of [offset, offset + length); length 0: to the end. Throws Failed.
  void drop(std::uint64_t offset, std::uint64_t length) const;

  int fd() const { return device_.get(); }

  // Answers every request with an error, until `done` or the mount is gone.
  void answer_for_the_dead(const std::atomic<bool>& done) const;

 private:
  Fd device_;
};

}  // namespace zbig::fuse
