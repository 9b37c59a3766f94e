// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/view.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "bigfile/block_reader.h"
#include "bigfile/objects.h"
#include "bigfile/run_ahead.h"
#include "bigfile/volume_object.h"
#include "zodb/error.h"

namespace zbig {
namespace {

// So many blocks are brought together; with 1-byte blocks a request has millions.
constexpr std::uint64_t kBlocksAtOnce = 4096;
constexpr std::uint64_t kMaxOffset = std::numeric_limits<std::int64_t>::max();

class CachedView final : public View {
 public:
  CachedView(std::shared_ptr<const Storage> storage, Volume volume, Tid at,
             std::shared_ptr<ObjectCaches> caches)
      : storage_(std::move(storage)),
        volume_(std::move(volume)),
        at_(at),
        caches_(std::move(caches)) {
    const Objects objects = this->objects();
    size_ = volume_size(volume_, tree(objects).max_key());
  }

  const Volume& volume() const override { return volume_; }
  Tid at() const override { return at_; }
  std::uint64_t size() const override { return size_; }

  void read(std::uint64_t offset, std::span<std::byte> out) const override {
    try {
      read_all(offset, out);
    } catch (const Error&) {
      rethrow_with_context("read " + std::to_string(out.size()) + " bytes at " +
                           std::to_string(offset) + " of " + volume_.path);
    }
    if (!out.empty() && offset <= kMaxOffset) run_ahead(offset, out.size());
  }

  ExtentList data_extents(std::uint64_t offset, std::uint64_t length) const override {
    ExtentList result;
    if (length == 0 || offset > kMaxOffset) return result;
    const std::uint64_t last = std::min(offset + (length - 1), kMaxOffset);
    const Objects objects = this->objects();
    tree(objects).for_each(block_of(offset), block_of(last), [&](std::int64_t key, const Ref&) {
      const std::uint64_t begin = static_cast<std::uint64_t>(key) * volume_.blksize;
      append_extent(result, begin, volume_.blksize);
      return true;
    });
    return clipped(result, offset, last - offset + 1);
  }

  void prefetch(std::uint64_t offset, std::uint64_t length) const override {
    if (length == 0 || offset > kMaxOffset) return;
    const std::uint64_t last = std::min(offset + (length - 1), kMaxOffset);
    const Objects objects = this->objects();
    std::vector<Oid> oids;
    tree(objects).for_each(block_of(offset), block_of(last), [&](std::int64_t, const Ref& zblk) {
      oids.push_back(zblk.oid);
      return oids.size() < kBlocksAtOnce;
    });
    storage_->prefetch(oids, at_);
  }

  std::shared_ptr<const View> advance(Tid to, std::span<const Oid> changed) const override {
    invariant(to >= at_, "a view cannot go back");
    auto caches = caches_;
    if (!caches->advance(at_, to, changed)) caches = std::make_shared<ObjectCaches>(to);
    auto volume = volume_;
    const auto stored = [&](Oid oid) {
      return std::find(changed.begin(), changed.end(), oid) != changed.end();
    };
    if (stored(volume.oid) || stored(volume.zfile)) {
      auto found = volume_at(*storage_, volume_, to);
      if (!found) throw NotFound(volume_.path + " is gone as of " + to.hex());
      volume = std::move(*found);
    }
    return std::make_shared<CachedView>(storage_, std::move(volume), to, std::move(caches));
  }

 private:
  Objects objects() const { return {*storage_, at_, *caches_, volume_.blksize}; }
  BTree tree(const Objects& objects) const {
    return {objects, volume_.blktab, KnownClass::kLOBTree};
  }
  std::int64_t block_of(std::uint64_t offset) const {
    return static_cast<std::int64_t>(offset / volume_.blksize);
  }

  // Who reads block after block finds the next ones on their way.
  void run_ahead(std::uint64_t offset, std::uint64_t length) const {
    const auto next = run_.reads(offset / volume_.blksize, (offset + length - 1) / volume_.blksize);
    if (!next) return;
    try {
      prefetch(next->first * volume_.blksize, next->count * volume_.blksize);
    } catch (const Error&) {  // whoever reads them will be told
    }
  }

  void read_all(std::uint64_t offset, std::span<std::byte> out) const {
    const Objects objects = this->objects();
    const BTree blktab = tree(objects);
    std::vector<BlockPart> parts;
    while (!out.empty()) {
      if (offset > kMaxOffset) {  // past any block
        std::memset(out.data(), 0, out.size());
        return;
      }
      const std::uint64_t first = offset / volume_.blksize;
      const std::uint64_t skip = offset % volume_.blksize;
      // Bytes dealt with in this round: to the end of a block, or of `out`.
      const std::uint64_t blocks =
          std::min(kBlocksAtOnce, (skip + out.size() - 1) / volume_.blksize + 1);
      const std::uint64_t length =
          std::min<std::uint64_t>(blocks * volume_.blksize - skip, out.size());

      parts.clear();
      std::uint64_t done = 0;  // bytes of this round that a part has, or that are zeroed
      const auto add = [&](std::int64_t key, const Ref& zblk) {
        const std::uint64_t block = static_cast<std::uint64_t>(key);
        const std::uint64_t begin = block == first ? 0 : (block - first) * volume_.blksize - skip;
        const std::uint64_t in_block = block == first ? skip : 0;
        const std::uint64_t count = std::min(volume_.blksize - in_block, length - begin);
        std::memset(out.data() + done, 0, begin - done);
        parts.push_back({block, zblk, in_block, out.subspan(begin, count)});
        done = begin + count;
        return true;
      };
      if (blocks == 1) {
        const auto key = static_cast<std::int64_t>(first);
        if (const auto zblk = blktab.find(key)) add(key, *zblk);
      } else {
        blktab.for_each(static_cast<std::int64_t>(first),
                        static_cast<std::int64_t>(first + blocks - 1), add);
      }
      std::memset(out.data() + done, 0, length - done);
      if (!parts.empty()) read_blocks(objects, volume_.blksize, parts);
      offset += length;
      out = out.subspan(length);
    }
  }

  const std::shared_ptr<const Storage> storage_;
  const Volume volume_;
  const Tid at_;
  const std::shared_ptr<ObjectCaches> caches_;
  std::uint64_t size_ = 0;
  mutable RunAhead run_{volume_.blksize};
};

}  // namespace

std::shared_ptr<const View> View::open(std::shared_ptr<const Storage> storage, const Volume& volume,
                                       Tid at) {
  auto found = volume_at(*storage, volume, at);
  if (!found) {
    throw NotFound("no volume " + volume.path + " in " + storage->url() + " as of " + at.hex());
  }
  auto caches = std::make_shared<ObjectCaches>(at);
  return std::make_shared<CachedView>(std::move(storage), std::move(*found), at, std::move(caches));
}

}  // namespace zbig
