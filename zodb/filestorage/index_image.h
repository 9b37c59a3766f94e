// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "zodb/bytes.h"
#include "zodb/ids.h"

// IndexImage: where the newest record of each object is, searched in the byte form of
// Data.fs.index itself.
//
// Problem. A database of ten million objects needs ten million positions in memory before the
// first read, and ZODB loads them all: seconds. But the file that keeps them is a sorted table
// already: per 6-byte prefix of the oid, the 2-byte suffixes ascending, then the 6-byte positions
// in the same order. So the file is mapped and searched in place. Opening it walks from bucket to
// bucket (153 of them for ten million objects), memory is 8 bytes an object, and only the pages
// that are used are ever read.
//
// The same bytes made in memory (IndexImageWriter) serve after a rebuild: one lookup structure, and
// what is saved is what is searched.
//
// Format, and the variants that Python 2 writes: docs/formats/filestorage.md, "Data.fs.index".
// The file is somebody else's: a malformed one gives no image. What only a walk through every
// bucket would show (suffixes out of order, positions out of range) is checked when a bucket is
// first searched, and throws Corrupt.
//
// Immutable; any thread.

namespace zbig::fs {

class IndexImage {
 public:
  struct Bucket {
    std::uint64_t prefix;   // of 48 bits
    const std::byte* blob;  // count suffixes, then count positions
    std::uint32_t count;    // 1 to 65536

    std::uint64_t suffix(std::uint32_t i) const { return get_be<2>(blob + 2 * std::size_t{i}); }
    std::uint64_t position(std::uint32_t i) const {
      return get_be<6>(blob + 2 * std::size_t{count} + 6 * std::size_t{i});
    }
    Oid oid(std::uint32_t i) const { return Oid{prefix << 16 | suffix(i)}; }
  };

  // The empty index.
  IndexImage() = default;
  ~IndexImage();
  IndexImage(const IndexImage&) = delete;
  IndexImage& operator=(const IndexImage&) = delete;

  // Maps the file `path`. Null where there is none, or none that makes sense.
  static std::unique_ptr<IndexImage> map(const std::string& path);
  // Null if the bytes are no index. `name` is for messages.
  static std::unique_ptr<IndexImage> from_bytes(Bytes bytes, const std::string& name);

  std::optional<std::uint64_t> find(Oid oid) const;
  // Everything in Data.fs before this position is in the index.
  std::uint64_t covered() const { return covered_; }
  std::uint64_t size() const { return size_; }
  std::optional<Oid> largest() const;
  const std::vector<Bucket>& buckets() const { return buckets_; }
  // The bytes from the first bucket to before the terminator, in the form that ZODB on Python 3
  // reads; nothing if the image is of another form.
  std::optional<ByteView> canonical_buckets() const;

 private:
  bool parse();
  void check(std::size_t bucket) const;

  std::string name_;
  Bytes own_;
  void* mapped_ = nullptr;
  std::size_t mapped_size_ = 0;
  ByteView bytes_;
  ByteView bucket_bytes_;
  bool canonical_ = true;
  std::uint64_t covered_ = 4;
  std::uint64_t size_ = 0;
  std::vector<Bucket> buckets_;  // ascending by prefix
  // Buckets that check() has found good.
  mutable std::unique_ptr<std::atomic<bool>[]> checked_;
};

// Puts the bytes of an index together. Oids are given in ascending order.
class IndexImageWriter {
 public:
  explicit IndexImageWriter(std::uint64_t covered, std::size_t expected_size);
  void add(Oid oid, std::uint64_t position);
  Bytes finish();

  // The pickle of the integer that an index begins with, and what it ends with.
  static Bytes head(std::uint64_t covered);
  static Bytes tail();

 private:
  void flush();

  Bytes out_;
  std::uint64_t prefix_ = 0;
  Bytes suffixes_;
  Bytes positions_;
};

}  // namespace zbig::fs
