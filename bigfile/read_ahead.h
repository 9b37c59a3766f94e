// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "bigfile/commit.h"

// ReadAhead: brings what is dirty from its source, a little ahead of the one who encodes it.
//
// A commit is bound by two copies, source to memory and memory to database, which do not need each
// other. A thread of its own makes the first one, into a few buffers that go round; the caller
// makes the second. The unit is a run of blocks, of about 2 MiB: one block of the usual size, many
// small ones.
//
// I1  Memory: kBuffers runs, whatever is dirty. Pages of a buffer that no dirty byte falls on are
//     never touched, so that a few dirty bytes in a huge block cost a few pages.
// I2  DirtySource::read is called by one thread at a time, in ascending order.
//
// A few dirty pages are read at once, without the thread.
//
// The wait in next() is as long as the source's own reads take, whose deadlines are its own.

namespace zbig {

// Blocks [first, first + count), of which some bytes are dirty.
struct DirtyRun {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  ExtentList dirty;                    // in bytes of the volume
  std::unique_ptr<std::byte[]> bytes;  // of count * blksize; only what is dirty is defined
};

class ReadAhead {
 public:
  ReadAhead(DirtySource& source, std::uint64_t blksize);
  ~ReadAhead();

  // The next run in ascending order, nothing at the end. Throws what the source threw.
  std::optional<DirtyRun> next();
  // Gives the buffer of a run back.
  void recycle(DirtyRun run);

 private:
  static constexpr std::uint64_t kRunBytes = 2u << 20;
  static constexpr std::size_t kBuffers = 3;
  static constexpr std::uint64_t kLittle = 64u << 10;

  bool is_little(const ExtentList& extents) const;
  void read_all(const std::stop_token& stop);
  std::unique_ptr<std::byte[]> wait_for_buffer(const std::stop_token& stop);

  DirtySource& source_;
  const std::uint64_t blksize_;
  const std::uint64_t run_blocks_;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  // Guarded by mutex_.
  std::vector<std::unique_ptr<std::byte[]>> free_;
  std::size_t allocated_ = 0;
  std::deque<DirtyRun> ready_;
  std::exception_ptr failure_;
  bool done_ = false;

  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace zbig
