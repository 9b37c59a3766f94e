// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <vector>

namespace zbig {

// A run of bytes of a volume.
struct Extent {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::uint64_t end() const { return offset + length; }
  bool operator==(const Extent&) const = default;
};

// Ascending, disjoint, not touching each other, none empty.
using ExtentList = std::vector<Extent>;

// The grain of dirtiness and of invalidation on a device.
inline constexpr std::uint64_t kPageSize = 4096;

}  // namespace zbig
