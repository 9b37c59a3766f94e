// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/block_buffer.h"

#include <algorithm>
#include <cstring>

namespace zbig {

std::size_t trimmed(std::span<const std::byte> bytes) {
  std::size_t end = bytes.size();
  // Eight at a time, as blocks of zeros are common.
  for (std::uint64_t word = 0; end >= sizeof(word); end -= sizeof(word)) {
    std::memcpy(&word, bytes.data() + end - sizeof(word), sizeof(word));
    if (word != 0) break;
  }
  while (end > 0 && bytes[end - 1] == std::byte{}) --end;
  return end;
}

std::uint64_t count_differences(std::span<const std::byte> a, std::span<const std::byte> b) {
  const std::size_t common = std::min(a.size(), b.size());
  std::uint64_t count = std::max(a.size(), b.size()) - common;
  for (std::size_t i = 0; i < common; ++i) count += a[i] != b[i] ? 1 : 0;
  return count;
}

}  // namespace zbig
