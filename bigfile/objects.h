// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "bigfile/regular_bucket.h"
#include "bigfile/revision_cache.h"
#include "zodb/btree.h"
#include "zodb/storage.h"

// Objects: the persistent objects of a volume as of one tid, brought in batches, through caches.
//
// Three kinds of object lie between a block number and a byte: nodes of BTrees (of the block table,
// and of each ZBlk1's chunk table), the ZBlk1 itself, which only names its chunk table, and what
// holds bytes, ZBlk0 and ZData. Of the last only the place of the payload is kept, never the
// payload, unless its record is compressed.
//
// Each cache maps an oid to what its record says and to nothing else, so whatever happens to the
// graph between two tids, the caches are right again when the oids that were stored are dropped.

namespace zbig {

// What the record of a ZBlk0, a ZData or a ZBlk1 says.
struct BlockObject {
  KnownClass cls = KnownClass::kZBlk0;
  bool compressed = false;   // the whole record must be had and inflated to get at the payload
  std::uint32_t offset = 0;  // ZBlk0, ZData: of the payload in the record (in the clear)
  std::uint64_t length = 0;
  RecordRef ref;  // of the revision
  Oid chunktab;   // ZBlk1: its IOBTree
};

// Memory that the views of one volume share. Bounded: the sum of the k... below, in bytes.
class ObjectCaches {
 public:
  explicit ObjectCaches(Tid horizon)
      : nodes(kNodes, horizon),
        buckets(kBuckets, horizon),
        objects(kObjects, horizon),
        inflated(kInflated, horizon, 1),
        horizon_(horizon) {}

  // From the views at `from` to those at `to`, given the oids stored in between. False if the
  // caches have moved away from `from` already: then they are no use at `to`.
  bool advance(Tid from, Tid to, std::span<const Oid> changed);

  // A node is in one of the two.
  RevisionCache<std::shared_ptr<const LoadedNode>> nodes;
  RevisionCache<RegularBucket> buckets;
  RevisionCache<BlockObject> objects;
  RevisionCache<std::shared_ptr<const Bytes>> inflated;  // whole records, in the clear

  // Where the payload was in the record of the ZData of 256 bytes and more that was last seen: a
  // guess for the next one. 0: none was seen.
  std::atomic<std::uint32_t> zdata_offset{0};

 private:
  static constexpr std::size_t kNodes = 8u << 20;
  static constexpr std::size_t kBuckets = 6u << 20;
  static constexpr std::size_t kObjects = 4u << 20;
  static constexpr std::size_t kInflated = 8u << 20;

  std::mutex advance_;
  Tid horizon_;  // guarded by advance_
};

// One operation's access to objects; made for it on the stack, used by its thread.
class Objects final : public NodeSource {
 public:
  // `max_payload`: no block is longer, so no record need be.
  Objects(const Storage& storage, Tid at, ObjectCaches& caches, std::uint64_t max_payload)
      : storage_(storage), at_(at), caches_(caches), max_payload_(max_payload) {}

  Tid at() const { return at_; }
  const Storage& storage() const { return storage_; }
  ObjectCaches& caches() const { return caches_; }

  // NodeSource. Throws Corrupt, which names the object.
  std::shared_ptr<const LoadedNode> node(Oid oid) const override;
  void want(std::span<const Oid> oids) const override;

  // What `refs` (of ZBlk0, ZData or ZBlk1) point to; one batch for what is not cached. Throws
  // Corrupt if one does not exist, or its record is of another class than the reference says.
  std::vector<BlockObject> block_objects(std::span<const Ref> refs) const;
  BlockObject block_object(const Ref& ref) const { return block_objects({&ref, 1}).front(); }

  // The known classes of objects, as their records say; nothing for an object that does not exist,
  // or of no known class. One batch for those that are not cached.
  std::vector<std::optional<KnownClass>> classes(std::span<const Oid> oids) const;

  // The record of an object whose record is compressed, in the clear.
  std::shared_ptr<const Bytes> inflated(const BlockObject& object) const;

  // Adds to `parts` the read of `out.size()` bytes of the payload from `offset`, or does it at once
  // if the record is compressed. The bytes exist.
  void read_payload(const BlockObject& object, std::uint64_t offset, std::span<std::byte> out,
                    std::vector<ReadPart>& parts) const;

 private:
  std::shared_ptr<const LoadedNode> cached_node(Oid oid) const;
  bool keep_node(const std::shared_ptr<const LoadedNode>& node) const;
  std::uint64_t max_record() const;
  BlockObject from_whole_record(const RecordRef& ref, Bytes data) const;

  const Storage& storage_;
  const Tid at_;
  ObjectCaches& caches_;
  const std::uint64_t max_payload_;
  // What `want` brought and the cache could not keep; until it is asked for.
  mutable std::unordered_map<Oid, std::shared_ptr<const LoadedNode>> wanted_;
};

}  // namespace zbig
