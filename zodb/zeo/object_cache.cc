// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/object_cache.h"

#include <algorithm>

namespace zbig::zeo {

namespace {

// What an entry takes beside its frame.
constexpr std::uint64_t kOverhead = 256;

std::uint64_t cost(const Loaded& loaded) { return loaded.frame.size + kOverhead; }

}  // namespace

// The newest with a serial less than `tid`.
ObjectCache::Entry* ObjectCache::newest_before(Revisions& revisions, Tid tid) {
  const auto after =
      std::partition_point(revisions.begin(), revisions.end(),
                           [&](const Entry& entry) { return entry.loaded->serial < tid; });
  return after == revisions.begin() ? nullptr : &*std::prev(after);
}

LoadedPtr ObjectCache::use(Entry& entry) {
  recency_.splice(recency_.begin(), recency_, entry.place);
  return entry.loaded;
}

LoadedPtr ObjectCache::find(Oid oid, Tid at, Tid head) {
  const std::lock_guard lock(mutex_);
  const auto found = objects_.find(oid);
  if (found == objects_.end() || at == kMaxTid) return nullptr;
  Entry* entry = newest_before(found->second, Tid{at.value + 1});
  if (entry == nullptr) return nullptr;
  if (entry->end ? *entry->end <= at : at > head) return nullptr;  // O1
  return use(*entry);
}

LoadedPtr ObjectCache::find_revision(Oid oid, Tid serial) {
  const std::lock_guard lock(mutex_);
  const auto found = objects_.find(oid);
  if (found == objects_.end()) return nullptr;
  Entry* entry = newest_before(found->second, Tid{serial.value + 1});
  if (entry == nullptr || entry->loaded->serial != serial) return nullptr;
  return use(*entry);
}

void ObjectCache::end(Revisions& revisions, Tid tid) {  // O2
  Entry* entry = newest_before(revisions, tid);
  if (entry != nullptr && (!entry->end || *entry->end > tid)) entry->end = tid;
}

void ObjectCache::add(const LoadedPtr& loaded, std::optional<Tid> end) {
  const std::lock_guard lock(mutex_);
  if (cost(*loaded) > capacity_) return;
  Revisions& revisions = objects_[loaded->oid];
  const auto at = std::partition_point(revisions.begin(), revisions.end(), [&](const Entry& entry) {
    return entry.loaded->serial < loaded->serial;
  });
  if (at != revisions.end() && at->loaded->serial == loaded->serial) {
    if (end && (!at->end || *at->end > *end)) at->end = end;
    use(*at);
    return;
  }
  recency_.push_front({loaded->oid, loaded->serial});
  bytes_ += cost(*loaded);
  revisions.insert(at, {loaded, end, recency_.begin()});
  this->end(revisions, loaded->serial);
  evict();
}

void ObjectCache::invalidate(Tid tid, std::span<const Oid> oids) {
  const std::lock_guard lock(mutex_);
  for (const Oid oid : oids) {
    if (const auto found = objects_.find(oid); found != objects_.end()) end(found->second, tid);
  }
}

void ObjectCache::forget_newest_of(Revisions& revisions) {
  for (std::size_t i = revisions.size(); i-- > 0;) {
    if (!revisions[i].end) drop(revisions, i);
  }
}

void ObjectCache::forget_newest(std::span<const Oid> oids) {
  const std::lock_guard lock(mutex_);
  for (const Oid oid : oids) {
    const auto found = objects_.find(oid);
    if (found == objects_.end()) continue;
    forget_newest_of(found->second);
    if (found->second.empty()) objects_.erase(found);
  }
}

void ObjectCache::forget_newest() {
  const std::lock_guard lock(mutex_);
  for (auto& [oid, revisions] : objects_) forget_newest_of(revisions);
  std::erase_if(objects_, [](const auto& object) { return object.second.empty(); });
}

void ObjectCache::drop(Revisions& revisions, std::size_t index) {
  bytes_ -= cost(*revisions[index].loaded);
  recency_.erase(revisions[index].place);
  revisions.erase(revisions.begin() + static_cast<std::ptrdiff_t>(index));
}

void ObjectCache::evict() {
  while (bytes_ > capacity_) {
    const auto [oid, serial] = recency_.back();
    const auto found = objects_.find(oid);
    Revisions& revisions = found->second;
    const auto at = std::partition_point(
        revisions.begin(), revisions.end(),
        [tid = serial](const Entry& entry) { return entry.loaded->serial < tid; });
    drop(revisions, static_cast<std::size_t>(at - revisions.begin()));
    if (revisions.empty()) objects_.erase(found);
  }
}

std::uint64_t ObjectCache::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace zbig::zeo
