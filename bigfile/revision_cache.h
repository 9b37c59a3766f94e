// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

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

// Value is cheap to copy, and has a default: a small struct or a shared_ptr.
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
    Entry* entry = shard.find(oid);
    if (entry == nullptr || entry->serial > at || at > shard.horizon) return std::nullopt;
    if (entry->newer != kNone) {
      shard.unlink(*entry);
      shard.link_as_newest(*entry);
    }
    return entry->value;
  }

  // Keeps what a view at `at` found: revision `serial` of the object, of `bytes` bytes in memory
  // beside the value itself. False if it was not to be kept.
  bool insert(Oid oid, Tid serial, Tid at, Value value, std::size_t bytes) {
    bytes += sizeof(Entry) + 2 * sizeof(std::uint32_t);  // and its share of the table
    if (bytes > max_shard_bytes_) return false;
    Shard& shard = shard_of(oid);
    const std::scoped_lock lock(shard.mutex);
    if (at != shard.horizon) return false;
    // Another reader may have been quicker; by I1 it has found the same.
    if (shard.find(oid) != nullptr) return true;
    shard.add(oid, serial, bytes, std::move(value));
    while (shard.bytes > max_shard_bytes_) shard.erase(shard.entries[shard.oldest]);
    return true;
  }

  // Moves the horizon, given all that was stored since.
  void advance(Tid to, std::span<const Oid> changed) {
    for (const Oid oid : changed) {
      Shard& shard = shard_of(oid);
      const std::scoped_lock lock(shard.mutex);
      if (Entry* entry = shard.find(oid)) shard.erase(*entry);
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
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  // Entries of a shard lie in one array, linked by their indexes from the most recently used one to
  // the least, and found through a table of indexes with open addressing: caches hold a hundred
  // thousand of them, and with a list and a map each would cost 100 bytes more.
  struct Entry {
    Oid oid;
    Tid serial;
    std::size_t bytes;
    std::uint32_t newer;
    std::uint32_t older;  // of an entry not in use: the next such one
    Value value;
  };

  struct alignas(64) Shard {
    mutable std::mutex mutex;
    // All below: guarded by mutex.
    Tid horizon;
    std::size_t bytes = 0;
    std::vector<Entry> entries;
    std::vector<std::uint32_t> table;  // a power of two, at most half full
    std::size_t count = 0;
    std::uint32_t newest = kNone;
    std::uint32_t oldest = kNone;
    std::uint32_t unused = kNone;

    std::size_t home(Oid oid) const { return (std::hash<Oid>()(oid) >> 20) & (table.size() - 1); }
    std::size_t after(std::size_t slot) const { return (slot + 1) & (table.size() - 1); }

    // Where the oid is in the table, or the free slot for it.
    std::size_t slot_of(Oid oid) const {
      std::size_t slot = home(oid);
      while (table[slot] != kNone && entries[table[slot]].oid != oid) slot = after(slot);
      return slot;
    }
    Entry* find(Oid oid) {
      if (table.empty()) return nullptr;
      const std::uint32_t index = table[slot_of(oid)];
      return index == kNone ? nullptr : &entries[index];
    }

    std::uint32_t index_of(const Entry& entry) const {
      return static_cast<std::uint32_t>(&entry - entries.data());
    }
    void unlink(const Entry& entry) {
      (entry.newer == kNone ? newest : entries[entry.newer].older) = entry.older;
      (entry.older == kNone ? oldest : entries[entry.older].newer) = entry.newer;
    }
    void link_as_newest(Entry& entry) {
      entry.newer = kNone;
      entry.older = newest;
      const std::uint32_t index = index_of(entry);
      (newest == kNone ? oldest : entries[newest].newer) = index;
      newest = index;
    }

    void grow_table() {
      table.assign(std::max<std::size_t>(16, table.size() * 2), kNone);
      for (std::uint32_t at = newest; at != kNone; at = entries[at].older) {
        table[slot_of(entries[at].oid)] = at;
      }
    }
    void add(Oid oid, Tid serial, std::size_t size, Value value) {
      if ((count + 1) * 2 > table.size()) grow_table();
      Entry entry{oid, serial, size, kNone, kNone, std::move(value)};
      std::uint32_t index = unused;
      if (index != kNone) {
        unused = entries[index].older;
        entries[index] = std::move(entry);
      } else {
        index = static_cast<std::uint32_t>(entries.size());
        entries.push_back(std::move(entry));
      }
      table[slot_of(oid)] = index;
      link_as_newest(entries[index]);
      ++count;
      bytes += size;
    }
    void erase(Entry& entry) {
      // Entries that stand behind the freed slot only because it was taken move up.
      std::size_t hole = slot_of(entry.oid);
      for (std::size_t slot = after(hole); table[slot] != kNone; slot = after(slot)) {
        const std::size_t wanted = home(entries[table[slot]].oid);
        if (((slot - wanted) & (table.size() - 1)) >= ((slot - hole) & (table.size() - 1))) {
          table[hole] = table[slot];
          hole = slot;
        }
      }
      table[hole] = kNone;
      unlink(entry);
      bytes -= entry.bytes;
      --count;
      entry.value = Value{};
      entry.older = unused;
      unused = index_of(entry);
    }
  };

  std::span<Shard> all() const { return {shards_.get(), shard_mask_ + 1}; }
  Shard& shard_of(Oid oid) const { return shards_[(std::hash<Oid>()(oid) >> 56) & shard_mask_]; }

  const std::size_t max_shard_bytes_;
  const std::size_t shard_mask_;
  const std::unique_ptr<Shard[]> shards_;
};

}  // namespace zbig
