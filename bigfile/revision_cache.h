// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>

#include "zodb/ids.h"

// RevisionCache: what was decoded of recently used objects, for views whose time moves on.
//
// A view at a tid needs each object as of that tid. History is immutable, so what was decoded for
// one view is right for the next one too, unless the object was stored in between; and what was
// stored in between is known, that is what an invalidation says. So one cache serves the views of a
// volume one after the other, and moving on costs as much as there are changed objects, not as much
// as is cached.
//
// I1  Every entry is the newest revision of its object with serial <= horizon, and thus for each
//     tid in [serial, horizon].
// I2  The sum of the sizes given is at most `max_bytes` (the least recently used go first).
//
// A reader behind the horizon still finds what I1 makes valid for it, and inserts nothing, for it
// cannot know whether its revision is still the newest at the horizon.
//
// Threads: any, at any time. The cache is cut into shards by oid, each with its own lock, held for
// a few dozen instructions.

namespace zbig {

// Value is cheap to copy: a small struct or a shared_ptr.
template <class Value>
class RevisionCache {
 public:
  // `shards` is a power of two. A value larger than max_bytes / shards is not kept.
  RevisionCache(std::size_t max_bytes, Tid horizon, std::size_t shards = 16)
      : max_shard_bytes_(max_bytes / shards),
        shard_mask_(shards - 1),
        shards_(std::make_unique<Shard[]>(shards)) {
    for (Shard& shard : all()) shard.horizon = horizon;
  }

  // The object as of `at`, if it is known.
  std::optional<Value> find(Oid oid, Tid at) {
    Shard& shard = shard_of(oid);
    const std::scoped_lock lock(shard.mutex);
    const auto found = shard.by_oid.find(oid);
    if (found == shard.by_oid.end()) return std::nullopt;
    const auto entry = found->second;
    if (entry->serial > at || at > shard.horizon) return std::nullopt;
    shard.recent.splice(shard.recent.begin(), shard.recent, entry);
    return entry->value;
  }

  // Keeps what a view at `at` found: revision `serial` of the object, of `bytes` bytes in memory.
  // False if it was not to be kept.
  bool insert(Oid oid, Tid serial, Tid at, Value value, std::size_t bytes) {
    bytes += kEntryOverhead;
    if (bytes > max_shard_bytes_) return false;
    Shard& shard = shard_of(oid);
    const std::scoped_lock lock(shard.mutex);
    if (at != shard.horizon) return false;
    const auto found = shard.by_oid.find(oid);
    if (found != shard.by_oid.end())
      return true;  // another reader was quicker; by I1 it is the same
    shard.recent.push_front({oid, serial, bytes, std::move(value)});
    shard.by_oid.emplace(oid, shard.recent.begin());
    shard.bytes += bytes;
    while (shard.bytes > max_shard_bytes_) shard.erase(std::prev(shard.recent.end()));
    return true;
  }

  // Moves the horizon, given all that was stored since.
  void advance(Tid to, std::span<const Oid> changed) {
    for (const Oid oid : changed) {
      Shard& shard = shard_of(oid);
      const std::scoped_lock lock(shard.mutex);
      const auto found = shard.by_oid.find(oid);
      if (found != shard.by_oid.end()) shard.erase(found->second);
      // From now on a reader behind would put back what was just dropped.
      shard.horizon = to;
    }
    for (Shard& shard : all()) {
      const std::scoped_lock lock(shard.mutex);
      shard.horizon = to;
    }
  }

  std::size_t bytes() const {
    std::size_t sum = 0;
    for (Shard& shard : all()) {
      const std::scoped_lock lock(shard.mutex);
      sum += shard.bytes;
    }
    return sum;
  }

 private:
  // A list node, a hash node and their share of the table.
  static constexpr std::size_t kEntryOverhead = 112;

  struct Entry {
    Oid oid;
    Tid serial;
    std::size_t bytes;
    Value value;
  };
  using Recent = std::list<Entry>;  // most recently used first

  struct alignas(64) Shard {
    std::mutex mutex;
    // All below: guarded by mutex.
    Tid horizon;
    std::size_t bytes = 0;
    Recent recent;
    std::unordered_map<Oid, typename Recent::iterator> by_oid;

    void erase(typename Recent::iterator entry) {
      bytes -= entry->bytes;
      by_oid.erase(entry->oid);
      recent.erase(entry);
    }
  };

  std::span<Shard> all() const { return {shards_.get(), shard_mask_ + 1}; }
  Shard& shard_of(Oid oid) const { return shards_[(std::hash<Oid>()(oid) >> 56) & shard_mask_]; }

  const std::size_t max_shard_bytes_;
  const std::size_t shard_mask_;
  const std::unique_ptr<Shard[]> shards_;
};

}  // namespace zbig
