// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "bigfile/view.h"

// A device is as large as its view rounded up to whole pages, or larger; what lies past the view
// reads as zeros (even where a block of an array has bytes there that are no part of the array).
// When its view becomes larger it grows, unless a size was asked for; it never becomes smaller, for
// programs have it mapped.

namespace zbig {

inline std::uint64_t rounded_up(std::uint64_t size) {
  return (size + kPageSize - 1) / kPageSize * kPageSize;
}

// How large a device is to be.
struct DeviceSize {
  std::uint64_t fixed = 0;  // as asked for, a multiple of kPageSize; 0: it grows with its view
  std::uint64_t least = 0;  // what it was already, if it grows

  std::uint64_t with(const View& view) const {
    return fixed != 0 ? fixed : std::max(least, rounded_up(view.size()));
  }
};

inline void read_padded(const View& view, std::uint64_t offset, std::span<std::byte> out) {
  const std::uint64_t size = view.size();
  const std::size_t inside =
      offset < size ? static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), size - offset))
                    : 0;
  if (inside > 0) view.read(offset, out.first(inside));
  std::fill(out.begin() + static_cast<std::ptrdiff_t>(inside), out.end(), std::byte{0});
}

inline ExtentList padded_data_extents(const View& view, std::uint64_t offset,
                                      std::uint64_t length) {
  const std::uint64_t size = view.size();
  if (offset >= size) return {};
  return view.data_extents(offset, std::min(length, size - offset));
}

}  // namespace zbig
