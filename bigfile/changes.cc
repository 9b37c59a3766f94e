// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/changes.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "bigfile/block_diff.h"
#include "bigfile/view.h"
#include "bigfile/volume_object.h"
#include "zodb/error.h"

namespace zbig {
namespace {

// Bytes that are equal between two that differ are left in the extent if they are fewer than this:
// a list of every other byte is of no use to anybody.
constexpr std::uint64_t kJoin = 512;
constexpr std::uint64_t kPiece = 256u << 10;

// The two states of a volume, the older one first.
struct Span {
  Tid from;
  Tid to;
  std::optional<Volume> before;
  std::optional<Volume> after;

  bool whole_file() const {
    return !before || !after || before->zfile != after->zfile ||
           before->blksize != after->blksize || before->blktab != after->blktab;
  }
};

Span load_span(const Storage& storage, const Volume& volume, Tid from, Tid to) {
  if (from > to) std::swap(from, to);
  Span span{from, to, volume_at(storage, volume, from), volume_at(storage, volume, to)};
  if (!span.before && !span.after) {
    throw NotFound("no volume " + volume.path + " in " + storage.url() + " at " + from.hex() +
                   " nor at " + to.hex());
  }
  return span;
}

std::uint64_t size_at(const Storage& storage, const std::optional<Volume>& volume, Tid at) {
  if (!volume) return 0;
  ObjectCaches caches(at);
  const Objects objects(storage, at, caches, volume->blksize);
  return volume_size(*volume, BTree(objects, volume->blktab, KnownClass::kLOBTree).max_key());
}

std::vector<Oid> ascending(std::span<const Oid> oids) {
  std::vector<Oid> sorted(oids.begin(), oids.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  return sorted;
}

// Adds to `list` where the two buffers, which are at `offset` of the volume, differ.
void append_differences(ExtentList& list, std::uint64_t offset, std::span<const std::byte> a,
                        std::span<const std::byte> b) {
  std::size_t at = 0;
  while (at < a.size()) {
    // In strides first: most bytes are equal.
    constexpr std::size_t kStride = 64;
    while (at + kStride <= a.size() && std::memcmp(&a[at], &b[at], kStride) == 0) at += kStride;
    while (at < a.size() && a[at] == b[at]) ++at;
    if (at == a.size()) return;
    const std::size_t begin = at;
    while (at < a.size() && a[at] != b[at]) ++at;
    const std::uint64_t first = offset + begin;
    if (!list.empty() && first - list.back().end() < kJoin) {
      list.back().length = offset + at - list.back().offset;
    } else {
      list.push_back({first, at - begin});
    }
  }
}

}  // namespace

Changes changed_extents(const Storage& storage, const Volume& volume, Tid from, Tid to,
                        std::span<const Oid> changed) {
  const bool backwards = from > to;
  const Span span = load_span(storage, volume, from, to);
  Changes changes;
  changes.old_size = size_at(storage, span.before, span.from);
  changes.new_size = size_at(storage, span.after, span.to);
  const std::uint64_t size = std::max(changes.old_size, changes.new_size);
  if (span.whole_file()) {
    changes.whole_file = true;
    append_extent(changes.extents, 0, size);
  } else {
    const std::vector<Oid> oids = ascending(changed);
    BlockDiff diff(storage, *span.after, span.from, span.to, oids);
    for (const BlockDelta& delta : diff.blocks()) {
      // An array may be smaller than what its file holds, by far.
      if (delta.block > size / span.after->blksize) break;
      const std::uint64_t begin = delta.block * span.after->blksize;
      for (const Extent& extent : delta.extents) {
        append_extent(changes.extents, begin + extent.offset, extent.length);
      }
    }
    if (span.before->array || span.after->array) {
      // With an array's size changes what it shows, and maybe nothing of its file.
      const std::uint64_t smaller = std::min(changes.old_size, changes.new_size);
      changes.extents.push_back({smaller, size - smaller});
      changes.extents = normalised(std::move(changes.extents));
    }
    changes.extents = clipped(changes.extents, 0, size);
  }
  if (backwards) std::swap(changes.old_size, changes.new_size);
  return changes;
}

ExtentList differing_extents(const Storage& storage, const Volume& volume, Tid from, Tid to) {
  if (from > to) std::swap(from, to);
  const Changes changes =
      changed_extents(storage, volume, from, to, storage.changed_oids(from, to));
  const std::shared_ptr<const Storage> borrowed(&storage, [](const Storage*) {});
  const auto open = [&](Tid at) -> std::shared_ptr<const View> {
    return volume_at(storage, volume, at) ? View::open(borrowed, volume, at) : nullptr;
  };
  const auto before = open(from);
  const auto after = open(to);
  // An array has as many bytes as it says; what its file holds beyond them is not shown.
  const auto shown = [](const std::shared_ptr<const View>& view, std::uint64_t offset,
                        std::span<std::byte> out) {
    std::memset(out.data(), 0, out.size());
    if (!view || offset >= view->size()) return;
    view->read(offset, out.first(std::min<std::uint64_t>(out.size(), view->size() - offset)));
  };

  ExtentList result;
  Bytes a(kPiece);
  Bytes b(kPiece);
  for (const Extent& extent : changes.extents) {
    // A file that was replaced may be sparse.
    std::vector<Extent> stored;
    for (const auto& view : {before, after}) {
      if (!view) continue;
      for (const Extent& data : view->data_extents(extent.offset, extent.length)) {
        stored.push_back(data);
      }
    }
    for (const Extent& data : normalised(std::move(stored))) {
      for (std::uint64_t at = data.offset; at < data.end(); at += kPiece) {
        const std::size_t length = std::min(kPiece, data.end() - at);
        shown(before, at, std::span(a).first(length));
        shown(after, at, std::span(b).first(length));
        append_differences(result, at, std::span(a).first(length), std::span(b).first(length));
      }
    }
  }
  return result;
}

std::vector<BlockChange> changed_blocks(const Storage& storage, const Volume& volume, Tid from,
                                        Tid to) {
  if (from > to) std::swap(from, to);
  const Span span = load_span(storage, volume, from, to);
  std::vector<BlockChange> result;
  if (span.whole_file()) {
    // Every block that there was or is changed with the file itself.
    const Volume& any = span.after ? *span.after : *span.before;
    const std::vector<Revision> history = storage.history(any.oid, 1);
    const Tid tid = history.empty() ? span.to : std::min(history.front().serial, span.to);
    for (const auto& [state, at] :
         {std::pair(span.before, span.from), std::pair(span.after, span.to)}) {
      if (!state) continue;
      ObjectCaches caches(at);
      const Objects objects(storage, at, caches, state->blksize);
      BTree(objects, state->blktab, KnownClass::kLOBTree)
          .for_each(0, kMaxKey, [&](std::int64_t key, const Ref&) {
            result.push_back({static_cast<std::uint64_t>(key), tid});
            return true;
          });
    }
    std::sort(result.begin(), result.end(),
              [](const BlockChange& a, const BlockChange& b) { return a.block < b.block; });
    result.erase(
        std::unique(result.begin(), result.end(),
                    [](const BlockChange& a, const BlockChange& b) { return a.block == b.block; }),
        result.end());
    return result;
  }
  const std::vector<Oid> oids = storage.changed_oids(span.from, span.to);
  BlockDiff diff(storage, *span.after, span.from, span.to, oids);
  for (const BlockDelta& delta : diff.blocks()) result.push_back({delta.block, delta.tid});
  return result;
}

}  // namespace zbig
