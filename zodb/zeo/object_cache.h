// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "zodb/ids.h"
#include "zodb/zeo/frame.h"

// ObjectCache: records that the server sent, each with the time for which it was the object's
// newest: [serial, end). What is past never changes, so an entry with an end is true for ever. One
// without is the newest as of the head, until an invalidation ends it.
//
// O1  An entry without an end is true for every tid from its serial up to the head. So it is asked
//     for such tids only, and the head moves after the invalidations are here (Feed).
// O2  An invalidation by transaction T ends only the entry that is newest before T, and only if it
//     had no earlier end: invalidations and replies may come in either order.
//
// Bounded in bytes; what was not asked for longest goes first. Any thread.

namespace zbig::zeo {

// A record, in the frame that brought it.
struct Loaded {
  Oid oid;
  Tid serial;
  Frame frame;
  ByteView data;
};
using LoadedPtr = std::shared_ptr<const Loaded>;

class ObjectCache {
 public:
  explicit ObjectCache(std::uint64_t capacity) : capacity_(capacity) {}

  // The object's newest revision as of `at`; `head` as it was read before.
  LoadedPtr find(Oid oid, Tid at, Tid head);
  LoadedPtr find_revision(Oid oid, Tid serial);

  // The loop's thread, in the order of the frames. `end`: the next revision, if there is one.
  void add(const LoadedPtr& loaded, std::optional<Tid> end);
  void invalidate(Tid tid, std::span<const Oid> oids);
  // These were changed at tids that are not known; of all objects, if nothing is given.
  void forget_newest(std::span<const Oid> oids);
  void forget_newest();

  std::uint64_t bytes() const;
  std::uint64_t capacity() const { return capacity_; }

 private:
  struct Entry;
  using Recency = std::list<std::pair<Oid, Tid>>;  // the last asked for at the front
  struct Entry {
    LoadedPtr loaded;
    std::optional<Tid> end;
    Recency::iterator place;
  };
  using Revisions = std::vector<Entry>;  // ascending by serial

  // All of these with mutex_ held.
  Entry* newest_before(Revisions& revisions, Tid tid);
  LoadedPtr use(Entry& entry);
  void end(Revisions& revisions, Tid tid);
  void forget_newest_of(Revisions& revisions);
  void drop(Revisions& revisions, std::size_t index);
  void evict();

  const std::uint64_t capacity_;
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::unordered_map<Oid, Revisions> objects_;
  Recency recency_;
  std::uint64_t bytes_ = 0;
};

}  // namespace zbig::zeo
