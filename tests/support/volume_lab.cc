// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/volume_lab.h"

#include <algorithm>
#include <cstring>

#include "bigfile/volume_object.h"
#include "zodb/btree.h"
#include "zodb/error.h"
#include "zodb/record.h"

namespace zbig::test {

void BytesSource::write(std::uint64_t offset, ByteView bytes) {
  writes_.emplace_back(offset, Bytes(bytes.begin(), bytes.end()));
  std::vector<Extent> extents = extents_;
  extents.push_back({offset, bytes.size()});
  extents_ = normalised(std::move(extents));
}

void BytesSource::read(std::uint64_t offset, std::span<std::byte> out) {
  ++reads;
  invariant(total_length(clipped(extents_, offset, out.size())) == out.size(),
            "a read of what is not dirty");
  for (const auto& [at, bytes] : writes_) {
    const std::uint64_t begin = std::max(at, offset);
    const std::uint64_t end = std::min(at + bytes.size(), offset + out.size());
    if (begin < end) {
      std::memcpy(out.data() + (begin - offset), bytes.data() + (begin - at), end - begin);
    }
  }
}

Bytes noise(std::uint64_t seed, std::size_t n) {
  Bytes bytes(n);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15 + 1;
  for (std::byte& byte : bytes) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<std::byte>(1 + (state >> 33) % 255);
  }
  return bytes;
}

std::vector<std::string> stored_kinds(const Storage& storage, Tid tid) {
  std::vector<std::string> kinds;
  const auto info = storage.transactions(tid, tid, /*backwards=*/false)->next();
  invariant(info.has_value(), "a transaction that is there");
  for (const auto& stored : info->stored) {
    const auto object = load_object(storage, stored.oid, tid);
    kinds.push_back(std::string(object->record.cls().name) + " " + std::to_string(stored.size));
  }
  std::sort(kinds.begin(), kinds.end());
  return kinds;
}

VolumeLab::VolumeLab(std::shared_ptr<Storage> storage, const std::string& path,
                     std::uint64_t blksize)
    : storage_(std::move(storage)) {
  NewVolume volume;
  volume.blksize = blksize;
  const Tid tid = create_volume(*storage_, path, volume);
  view_ = View::open(storage_, find_volume(*storage_, path, tid), tid);
}

void VolumeLab::write(std::uint64_t offset, ByteView bytes) {
  if (dirty_.empty()) proposed_ = model_;
  dirty_.write(offset, bytes);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    Bytes& block = proposed_[(offset + i) / blksize()];
    block.resize(blksize());
    block[(offset + i) % blksize()] = bytes[i];
  }
}

void VolumeLab::write_block(std::uint64_t block, Bytes bytes) {
  bytes.resize(blksize());
  write(block * blksize(), bytes);
}

void VolumeLab::zero(std::uint64_t offset, std::uint64_t length) { write(offset, Bytes(length)); }

CommitResult VolumeLab::commit(BlockFormat format) {
  BytesSource source = std::exchange(dirty_, {});
  const VolumeCommit work{volume(), view_->at(), &source, format};
  CommitResult result = zbig::commit(*storage_, {&work, 1}, {"joe", "lab", {}}, {});
  const Tid to = result.tid.value_or(storage_->last_tid());
  view_ = view_->advance(to, storage_->changed_oids(view_->at(), to));
  model_ = std::move(proposed_);
  return result;
}

void VolumeLab::refresh() {
  const Tid to = storage_->sync();
  view_ = view_->advance(to, storage_->changed_oids(view_->at(), to));
  dirty_ = {};
  model_.clear();
  const auto fresh = View::open(storage_, volume(), to);
  for (const Extent& extent : fresh->data_extents(0, fresh->size())) {
    for (std::uint64_t at = extent.offset; at < extent.end(); at += blksize()) {
      Bytes& block = model_[at / blksize()];
      block.resize(blksize());
      fresh->read(at, block);
    }
  }
}

std::string VolumeLab::differs() const {
  const auto fresh = View::open(storage_, volume(), view_->at());
  const std::uint64_t blocks = model_.empty() ? 0 : model_.rbegin()->first + 1;
  if (fresh->size() != blocks * blksize()) {
    return "size " + std::to_string(fresh->size()) + ", not " + std::to_string(blocks * blksize());
  }
  for (const auto& [block, wanted] : model_) {
    for (const View* view : {view_.get(), fresh.get()}) {
      Bytes found(blksize());
      view->read(block * blksize(), found);
      const auto [a, b] = std::mismatch(found.begin(), found.end(), wanted.begin());
      if (a != found.end()) {
        return "block " + std::to_string(block) + " at " + std::to_string(a - found.begin()) +
               (view == fresh.get() ? "" : " in the view with inherited caches");
      }
    }
  }
  std::uint64_t stored = 0;
  for (const Extent& extent : fresh->data_extents(0, fresh->size())) stored += extent.length;
  if (stored != model_.size() * blksize()) return "blocks that should be holes";
  return "";
}

Oid VolumeLab::zblk_of(std::uint64_t block) const {
  const StorageNodeSource source(*storage_, at());
  const auto ref =
      BTree(source, volume().blktab, KnownClass::kLOBTree).find(static_cast<std::int64_t>(block));
  return ref ? ref->oid : Oid{};
}

std::string VolumeLab::format_of(std::uint64_t block) const {
  const Oid oid = zblk_of(block);
  if (oid == Oid{}) return "hole";
  return std::string(load_object(*storage_, oid, at())->record.cls().name);
}

}  // namespace zbig::test
