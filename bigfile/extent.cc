// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/extent.h"

#include <algorithm>

namespace zbig {

void append_extent(ExtentList& list, std::uint64_t offset, std::uint64_t length) {
  if (length == 0) return;
  if (list.empty() || list.back().end() < offset) {
    list.push_back({offset, length});
    return;
  }
  Extent& last = list.back();
  last.length = std::max(last.end(), offset + length) - last.offset;
}

ExtentList normalised(std::vector<Extent> extents) {
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return a.offset < b.offset; });
  ExtentList result;
  for (const Extent& extent : extents) append_extent(result, extent.offset, extent.length);
  return result;
}

ExtentList clipped(const ExtentList& list, std::uint64_t offset, std::uint64_t length) {
  ExtentList result;
  const std::uint64_t end = offset + length;
  auto at = std::partition_point(list.begin(), list.end(),
                                 [&](const Extent& extent) { return extent.end() <= offset; });
  for (; at != list.end() && at->offset < end; ++at) {
    const std::uint64_t from = std::max(offset, at->offset);
    result.push_back({from, std::min(end, at->end()) - from});
  }
  return result;
}

std::uint64_t total_length(const ExtentList& list) {
  std::uint64_t sum = 0;
  for (const Extent& extent : list) sum += extent.length;
  return sum;
}

}  // namespace zbig
