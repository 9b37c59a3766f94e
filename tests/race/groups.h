// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "tests/race/device_file.h"

// Where the words of a group are: in every volume two in one page, one in another page of the same
// block, and one in the block after. Every transaction makes all of them equal.
//
// Behind the groups each writer has a block to itself: a writer on a device that follows dirties
// that one first, so that the view stays where it is (see Writer).

namespace zbig::race {

struct Place {
  unsigned volume = 0;
  std::uint64_t offset = 0;
};

struct Layout {
  unsigned volumes = 1;
  unsigned groups = 4;
  std::uint64_t block = 256 << 10;

  std::vector<Place> places(unsigned group) const {
    const std::uint64_t start = std::uint64_t{2} * group * block;
    std::vector<Place> all;
    for (unsigned volume = 0; volume < volumes; ++volume) {
      for (const std::uint64_t offset : {std::uint64_t{8}, DeviceFile::kPage - sizeof(Word),
                                         block - DeviceFile::kPage, block + DeviceFile::kPage}) {
        all.push_back({volume, start + offset});
      }
    }
    return all;
  }
  // The two of a page, as offsets in it; and the number of that page, in each volume.
  static constexpr std::array<std::uint64_t, 2> kOfOnePage{8, DeviceFile::kPage - sizeof(Word)};
  std::uint64_t shared_page(unsigned group) const {
    return std::uint64_t{2} * group * block / DeviceFile::kPage;
  }
  std::uint64_t own_place(unsigned writer) const {
    return (std::uint64_t{2} * groups + writer) * block;
  }
  std::size_t size(unsigned writers) const { return (std::size_t{2} * groups + writers) * block; }
};

}  // namespace zbig::race
