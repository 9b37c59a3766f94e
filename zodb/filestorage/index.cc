// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/filestorage/index.h"

#include <algorithm>

#include "zodb/error.h"

namespace zbig::fs {

const IndexDelta::Bucket* IndexDelta::bucket(std::uint64_t prefix) const {
  if (buckets_.empty()) return nullptr;
  // A scan mostly adds to the last bucket.
  const auto& [last, bucket] = *buckets_.rbegin();
  if (last == prefix) return &bucket;
  if (last < prefix) return nullptr;
  const auto found = buckets_.find(prefix);
  return found == buckets_.end() ? nullptr : &found->second;
}

std::optional<std::uint64_t> IndexDelta::find(Oid oid) const {
  const auto* const at = bucket(oid.value >> 16);
  if (at == nullptr) return std::nullopt;
  const auto suffix = oid.value & 0xffff;
  if (!at->table.empty()) {
    const auto position = at->table[suffix];
    return position != 0 ? std::optional(position) : std::nullopt;
  }
  const auto entry = std::lower_bound(at->sorted.begin(), at->sorted.end(), suffix << 48);
  if (entry == at->sorted.end() || *entry >> 48 != suffix) return std::nullopt;
  return *entry & kPositionMask;
}

void IndexDelta::set(Oid oid, std::uint64_t position) {
  invariant(position != 0 && position <= kPositionMask, "an index position fits in 48 bits");
  const auto prefix = oid.value >> 16;
  auto* at = const_cast<Bucket*>(bucket(prefix));
  if (at == nullptr) at = &buckets_[prefix];
  const auto suffix = oid.value & 0xffff;
  const auto entry = suffix << 48 | position;

  if (at->table.empty()) {
    auto& sorted = at->sorted;
    if (sorted.empty() || sorted.back() >> 48 < suffix) {
      sorted.push_back(entry);
      ++size_;
    } else {
      const auto place = std::lower_bound(sorted.begin(), sorted.end(), suffix << 48);
      if (*place >> 48 == suffix) {
        *place = entry;
      } else {
        sorted.insert(place, entry);
        ++size_;
      }
    }
    if (sorted.size() <= kMaxSorted) return;
    at->table.resize(65536);
    for (const auto old : sorted) at->table[old >> 48] = old & kPositionMask;
    std::vector<std::uint64_t>().swap(sorted);
    return;
  }
  auto& place = at->table[suffix];
  if (place == 0) ++size_;
  place = position;
}

std::optional<Oid> IndexDelta::largest() const {
  if (buckets_.empty()) return std::nullopt;
  const auto& [prefix, bucket] = *buckets_.rbegin();
  if (!bucket.sorted.empty()) return Oid{prefix << 16 | bucket.sorted.back() >> 48};
  std::uint64_t suffix = 65535;
  while (bucket.table[suffix] == 0) --suffix;
  return Oid{prefix << 16 | suffix};
}

std::vector<std::uint64_t> IndexDelta::prefixes() const {
  std::vector<std::uint64_t> out;
  for (const auto& [prefix, bucket] : buckets_) out.push_back(prefix);
  return out;
}

std::optional<std::uint64_t> Index::find(Oid oid) const {
  const auto newer = delta_.find(oid);
  return newer ? newer : image_->find(oid);
}

std::optional<Oid> Index::largest() const {
  return std::max(delta_.largest(), image_->largest());  // nothing is less than any oid
}

std::shared_ptr<const IndexImage> Index::merged(std::uint64_t covered,
                                                const std::string& name) const {
  IndexImageWriter writer(covered, static_cast<std::size_t>(image_->size() + delta_.size()));
  const auto prefixes = delta_.prefixes();
  auto prefix = prefixes.begin();
  auto bucket = image_->buckets().begin();
  const auto last_bucket = image_->buckets().end();
  while (prefix != prefixes.end() || bucket != last_bucket) {
    const bool from_image =
        bucket != last_bucket && (prefix == prefixes.end() || bucket->prefix <= *prefix);
    const auto current = from_image ? bucket->prefix : *prefix;

    std::uint32_t i = 0;
    const auto count = from_image ? bucket->count : 0;
    const auto add_older = [&](std::optional<Oid> before) {
      while (i < count && (!before || bucket->oid(i) < *before)) {
        writer.add(bucket->oid(i), bucket->position(i));
        ++i;
      }
    };
    delta_.each_in(current, [&](Oid oid, std::uint64_t position) {
      add_older(oid);
      if (i < count && bucket->oid(i) == oid) ++i;
      writer.add(oid, position);
    });
    add_older(std::nullopt);

    if (prefix != prefixes.end() && *prefix == current) ++prefix;
    if (from_image) ++bucket;
  }
  auto image = IndexImage::from_bytes(writer.finish(), name);
  invariant(image != nullptr, "an index that we made can be read");
  return image;
}

void Index::adopt(std::shared_ptr<const IndexImage> image) {
  image_ = std::move(image);
  delta_ = IndexDelta();
}

}  // namespace zbig::fs
