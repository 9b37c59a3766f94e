// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "zodb/filestorage/index_image.h"
#include "zodb/ids.h"

// Index: oid -> position of the newest committed record.
//
// An immutable image (the index file, or the same bytes in memory) and a delta: what was committed
// since. The delta is small, until it is merged with the image into a new one; a rebuild without an
// index file is a delta of everything, merged at the end.
//
// Not locked: its owner allows many readers or one writer (see file_storage.h).

namespace zbig::fs {

// A map that costs 8 bytes an object where oids are dense, and does well when they come in
// ascending order, as a scan of the file gives them. Per 65536 oids a bucket: a sorted array of
// (suffix, position) while it holds few, a table indexed by the suffix afterwards.
class IndexDelta {
 public:
  std::optional<std::uint64_t> find(Oid oid) const;
  void set(Oid oid, std::uint64_t position);  // 0 < position <= kMaxFileSize
  std::uint64_t size() const { return size_; }
  std::optional<Oid> largest() const;

  // All oids of one prefix, ascending.
  template <typename Fn>
  void each_in(std::uint64_t prefix, Fn fn) const {
    const auto found = buckets_.find(prefix);
    if (found == buckets_.end()) return;
    for (const auto entry : found->second.sorted) {
      fn(Oid{prefix << 16 | entry >> 48}, entry & kPositionMask);
    }
    for (std::size_t suffix = 0; suffix < found->second.table.size(); ++suffix) {
      const auto position = found->second.table[suffix];
      if (position != 0) fn(Oid{prefix << 16 | suffix}, position);
    }
  }
  std::vector<std::uint64_t> prefixes() const;

 private:
  static constexpr std::uint64_t kPositionMask = (std::uint64_t{1} << 48) - 1;
  static constexpr std::size_t kMaxSorted = 8192;

  struct Bucket {
    std::vector<std::uint64_t> sorted;  // suffix << 48 | position; empty once there is a table
    std::vector<std::uint64_t> table;   // 65536 positions, 0 for none; or empty
  };
  const Bucket* bucket(std::uint64_t prefix) const;

  std::map<std::uint64_t, Bucket> buckets_;
  std::uint64_t size_ = 0;
};

class Index {
 public:
  Index() : image_(std::make_shared<IndexImage>()) {}
  explicit Index(std::shared_ptr<const IndexImage> image) : image_(std::move(image)) {}

  std::optional<std::uint64_t> find(Oid oid) const;
  void set(Oid oid, std::uint64_t position) { delta_.set(oid, position); }
  std::optional<Oid> largest() const;
  const IndexImage& image() const { return *image_; }
  bool has_delta() const { return delta_.size() != 0; }

  // Whether the delta is so large that it should be merged.
  bool wants_merge() const {
    return delta_.size() > kMinMerge && delta_.size() > image_->size() / 8;
  }
  // An image of everything in this index; as of `covered`, the end of what was scanned.
  std::shared_ptr<const IndexImage> merged(std::uint64_t covered, const std::string& name) const;
  // Takes the image that merged() gave, in place of the old one and the delta.
  void adopt(std::shared_ptr<const IndexImage> image);

 private:
  static constexpr std::uint64_t kMinMerge = 65536;

  std::shared_ptr<const IndexImage> image_;
  IndexDelta delta_;
};

}  // namespace zbig::fs
