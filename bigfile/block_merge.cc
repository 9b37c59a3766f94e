// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/block_merge.h"

#include <algorithm>
#include <cstring>

#include "zodb/bytes.h"

namespace zbig {
namespace {

constexpr std::uint64_t kPiece = 1u << 20;  // read at a time

std::shared_ptr<const View> view_of(const Storage& storage, const Volume& volume, Tid at) {
  // Whoever merges outlives it.
  return View::open({&storage, [](const Storage*) {}}, volume, at);
}

// The dirty extents widened to whole pages.
ExtentList pages_of(const ExtentList& dirty) {
  ExtentList pages;
  for (const Extent& extent : dirty) {
    const std::uint64_t first = extent.offset / kPageSize * kPageSize;
    const std::uint64_t end = (extent.end() + kPageSize - 1) / kPageSize * kPageSize;
    append_extent(pages, first, end - first);
  }
  return pages;
}

bool equal(const std::byte* a, const std::byte* b, std::uint64_t length) {
  return std::memcmp(a, b, length) == 0;
}

}  // namespace

BlockMerge::BlockMerge(const Storage& storage, const Volume& at_base, Tid base,
                       const Volume& at_head, Tid head)
    : blksize_(at_head.blksize),
      base_(view_of(storage, at_base, base)),
      head_(view_of(storage, at_head, head)) {}

BlockMerge::Pages BlockMerge::merge(const BlockBuffer& buffer) const {
  Pages pages;
  Bytes base;
  Bytes head;
  const std::uint64_t begin = buffer.block * blksize_;
  for (const Extent& extent : pages_of(buffer.dirty)) {
    for (std::uint64_t piece = extent.offset; piece < extent.end(); piece += kPiece) {
      const std::uint64_t piece_end = std::min(extent.end(), piece + kPiece);
      base.resize(piece_end - piece);
      head.resize(piece_end - piece);
      base_->read(begin + piece, base);
      head_->read(begin + piece, head);
      for (std::uint64_t page = piece; page < piece_end; page += kPageSize) {
        const std::byte* was = base.data() + (page - piece);
        const std::byte* is = head.data() + (page - piece);
        const bool others_changed = !equal(was, is, kPageSize);
        const ExtentList dirty = clipped(buffer.dirty, page, kPageSize);
        const auto own_equals = [&](const std::byte* other) {
          return std::all_of(dirty.begin(), dirty.end(), [&](const Extent& part) {
            return equal(&buffer.bytes[part.offset], other + (part.offset - page), part.length);
          });
        };
        if (own_equals(is)) continue;
        if (!others_changed) {
          for (const Extent& part : dirty) append_extent(pages.own, part.offset, part.length);
        } else if (!own_equals(was)) {
          append_extent(pages.both, begin + page, kPageSize);
        }
      }
    }
  }
  return pages;
}

}  // namespace zbig
