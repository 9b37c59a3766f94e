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

// Appends [offset, offset + length) to a list in which nothing begins after `offset`; runs that
// overlap or touch become one. An empty run is left out.
void append_extent(ExtentList& list, std::uint64_t offset, std::uint64_t length);

// The union of `extents`, which may be in any order, overlap and be empty.
ExtentList normalised(std::vector<Extent> extents);

// The parts of `list` within [offset, offset + length).
ExtentList clipped(const ExtentList& list, std::uint64_t offset, std::uint64_t length);

std::uint64_t total_length(const ExtentList& list);

}  // namespace zbig
