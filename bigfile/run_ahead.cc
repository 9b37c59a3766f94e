// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/run_ahead.h"

#include <algorithm>

namespace zbig {

std::uint64_t RunAhead::window_of(std::uint64_t blksize) {
  return std::clamp<std::uint64_t>(kBytes / blksize, 2, kMostBlocks);
}

std::optional<RunAhead::Blocks> RunAhead::reads(std::uint64_t first, std::uint64_t last) {
  const std::uint64_t reached = reached_.load(std::memory_order_relaxed);
  if (last < reached && last + kOutOfOrder >= reached) return std::nullopt;  // in its midst
  reached_.store(last + 1, std::memory_order_relaxed);
  if (first > reached + kOutOfOrder || last < reached) {  // somewhere else
    said_.store(last + 1, std::memory_order_relaxed);
    return std::nullopt;
  }
  std::uint64_t said = said_.load(std::memory_order_relaxed);
  const std::uint64_t from = std::max(said, last + 1);
  const std::uint64_t end = last + 1 + window_;
  // In halves of the window, so that it is not said block by block.
  if (end < from + window_ / 2) return std::nullopt;
  if (!said_.compare_exchange_strong(said, end, std::memory_order_relaxed)) return std::nullopt;
  return Blocks{from, end - from};
}

}  // namespace zbig
