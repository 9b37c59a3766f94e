// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

// RunAhead: sees that somebody reads block after block, and says which blocks will be wanted soon.
//
// A database in another process has each record a round trip away. Readers ask for a few blocks at
// a time, often from several threads and not quite in order, which does not fill a link; so what
// comes next is asked for before they do. Where reads are random it says nothing.
//
// Any thread. Two that race may say a few blocks twice, or not at all: it is a hint.

namespace zbig {

class RunAhead {
 public:
  struct Blocks {
    std::uint64_t first;
    std::uint64_t count;
  };

  explicit RunAhead(std::uint64_t blksize) : window_(window_of(blksize)) {}

  // Blocks first..last are read now.
  std::optional<Blocks> reads(std::uint64_t first, std::uint64_t last);

 private:
  static std::uint64_t window_of(std::uint64_t blksize);

  static constexpr std::uint64_t kBytes = 8u << 20;  // ahead
  static constexpr std::uint64_t kMostBlocks = 1024;
  static constexpr std::uint64_t kOutOfOrder = 8;  // blocks

  const std::uint64_t window_;  // in blocks
  // The block after the last that was read in a row; at first nowhere.
  std::atomic<std::uint64_t> reached_ = std::uint64_t{1} << 63;
  std::atomic<std::uint64_t> said_ = 0;  // blocks before this one were said
};

}  // namespace zbig
