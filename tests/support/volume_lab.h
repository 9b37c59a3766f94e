// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bigfile/commit.h"
#include "bigfile/view.h"
#include "bigfile/volume.h"
#include "zodb/storage.h"

// VolumeLab: writes to a volume as a device would, and a model of what it must hold.

namespace zbig::test {

// Dirty bytes in memory.
class BytesSource : public DirtySource {
 public:
  // Later writes win.
  void write(std::uint64_t offset, ByteView bytes);
  const ExtentList& extents() const override { return extents_; }
  void read(std::uint64_t offset, std::span<std::byte> out) override;
  bool empty() const { return extents_.empty(); }
  std::uint64_t reads = 0;

 private:
  std::vector<std::pair<std::uint64_t, Bytes>> writes_;
  ExtentList extents_;
};

// `n` bytes, none of them zero, that depend on the seed only.
Bytes noise(std::uint64_t seed, std::size_t n);

// The records of a transaction by class: ["ZBlk1 84", "ZData 4145"], sorted.
std::vector<std::string> stored_kinds(const Storage& storage, Tid tid);

class VolumeLab {
 public:
  VolumeLab(std::shared_ptr<Storage> storage, const std::string& path, std::uint64_t blksize);

  // Writes that the next commit() takes.
  void write(std::uint64_t offset, ByteView bytes);
  void write_block(std::uint64_t block, Bytes bytes);  // completed with zeros
  void zero(std::uint64_t offset, std::uint64_t length);

  // Commits against the view of the lab, which moves on to the result. Throws what commit throws,
  // and then the writes are gone from the model too.
  CommitResult commit(BlockFormat format = BlockFormat::kZBlk0);
  // Does a view of the lab's tid hold what the model says? Empty, or where not.
  std::string differs() const;
  // Takes what others committed into the view; the model is read again.
  void refresh();

  Tid at() const { return view_->at(); }
  const View& view() const { return *view_; }
  const Volume& volume() const { return view_->volume(); }
  std::uint64_t blksize() const { return volume().blksize; }
  std::string format_of(std::uint64_t block) const;  // "ZBlk0", "ZBlk1", "hole"
  Oid zblk_of(std::uint64_t block) const;

 private:
  std::shared_ptr<Storage> storage_;
  std::shared_ptr<const View> view_;
  BytesSource dirty_;
  std::map<std::uint64_t, Bytes> model_;     // as of the view
  std::map<std::uint64_t, Bytes> proposed_;  // with the writes
};

}  // namespace zbig::test
