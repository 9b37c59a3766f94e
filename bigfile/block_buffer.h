// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <span>

#include "bigfile/extent.h"

// A block on its way to the database: the new bytes where it is dirty, and nothing yet elsewhere.

namespace zbig {

struct BlockBuffer {
  std::uint64_t block = 0;
  std::span<std::byte> bytes;  // of blksize
  ExtentList dirty;            // within the block; elsewhere `bytes` are undefined until filled
};

// How long `bytes` is without the zeros at its end.
std::size_t trimmed(std::span<const std::byte> bytes);

// At how many places below the end of the shorter one the two differ, and by how many bytes one is
// longer: wendelin.core's measure of a change.
std::uint64_t count_differences(std::span<const std::byte> a, std::span<const std::byte> b);

}  // namespace zbig
