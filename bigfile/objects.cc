// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/objects.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "zodb/error.h"
#include "zodb/payload.h"
#include "zodb/pickle_reader.h"
#include "zodb/record.h"

namespace zbig {
namespace {

std::size_t memory_of(const LoadedNode& node) {
  return sizeof(LoadedNode) + node.node.keys.capacity() * sizeof(std::int64_t) +
         node.node.refs.capacity() * sizeof(Ref);
}

[[noreturn]] void throw_missing(Oid oid, Tid at) {
  throw Corrupt(describe_object(oid, at) + ": it is referred to and does not exist");
}

BlockObject payload_object(const PayloadHead& head, const RecordRef& ref) {
  // Before the payload there is a class and a length; a pickle of gigabytes of something else is no
  // block.
  if (head.offset > std::numeric_limits<std::uint32_t>::max()) {
    throw Corrupt(describe_object(ref.oid, ref.serial) + ": its payload is too far in");
  }
  BlockObject object;
  object.cls = head.cls.known();
  object.offset = static_cast<std::uint32_t>(head.offset);
  object.length = head.length;
  object.ref = ref;
  return object;
}

bool holds_payload(KnownClass cls) {
  return cls == KnownClass::kZBlk0 || cls == KnownClass::kZData;
}

void check_class(const Ref& ref, const BlockObject& object, Tid at) {
  if (!ref.cls || ref.cls->known() == object.cls) return;
  throw Corrupt(describe_object(ref.oid, at) + ": it is a " + ClassId::of(object.cls).name().str() +
                " and is referred to as a " + ref.cls->name().str());
}

}  // namespace

bool ObjectCaches::advance(Tid from, Tid to, std::span<const Oid> changed) {
  const std::scoped_lock lock(advance_);
  if (horizon_ != from) return false;
  nodes.advance(to, changed);
  buckets.advance(to, changed);
  objects.advance(to, changed);
  inflated.advance(to, changed);
  horizon_ = to;
  return true;
}

std::shared_ptr<const LoadedNode> Objects::cached_node(Oid oid) const {
  if (auto node = caches_.nodes.find(oid, at_)) return std::move(*node);
  if (const auto bucket = caches_.buckets.find(oid, at_)) return bucket->node(oid);
  return nullptr;
}

bool Objects::keep_node(const std::shared_ptr<const LoadedNode>& node) const {
  if (const auto bucket = RegularBucket::from(*node)) {
    return caches_.buckets.insert(node->oid, node->serial, at_, *bucket, 0);
  }
  return caches_.nodes.insert(node->oid, node->serial, at_, node, memory_of(*node));
}

std::shared_ptr<const LoadedNode> Objects::node(Oid oid) const {
  if (auto cached = cached_node(oid)) return cached;
  const auto wanted = wanted_.find(oid);
  if (wanted != wanted_.end()) {
    auto node = std::move(wanted->second);
    wanted_.erase(wanted);
    return node;
  }
  auto record = storage_.load(oid, at_);
  if (!record) throw_missing(oid, at_);
  auto node = parse_loaded_node(oid, std::move(*record));
  keep_node(node);
  return node;
}

void Objects::want(std::span<const Oid> oids) const {
  std::vector<Oid> missing;
  for (const Oid oid : oids) {
    if (!wanted_.contains(oid) && !caches_.nodes.find(oid, at_) &&
        !caches_.buckets.find(oid, at_)) {
      missing.push_back(oid);
    }
  }
  if (missing.empty()) return;
  std::vector<std::optional<Record>> records(missing.size());
  storage_.load(missing, at_, Storage::kMaxLoad, records);
  for (std::size_t i = 0; i < missing.size(); ++i) {
    if (!records[i]) continue;  // for node() to complain of, if it is asked for
    auto node = parse_loaded_node(missing[i], std::move(*records[i]));
    if (!keep_node(node)) wanted_[missing[i]] = std::move(node);
  }
}

std::uint64_t Objects::max_record() const {
  return std::max(Storage::kMaxLoad, max_payload_ + 4096);
}

BlockObject Objects::from_whole_record(const RecordRef& ref, Bytes data) const {
  try {
    BlockObject object;
    object.ref = ref;
    object.compressed = is_compressed(data);
    if (object.compressed) data = inflate_record(std::move(data), max_record());
    if (const auto payload = find_payload(data)) {
      const bool compressed = object.compressed;
      object = payload_object(*payload, ref);
      object.compressed = compressed;
      return object;
    }
    const ObjectRecord record = ObjectRecord::parse(std::move(data));
    if (!record.is(KnownClass::kZBlk1)) {
      throw Corrupt("a ZBlk0, ZBlk1 or ZData was expected here, and it is a " + record.cls().str());
    }
    const auto chunktab = record.state().ref();
    if (!chunktab || (chunktab->id && chunktab->id->known() != KnownClass::kIOBTree)) {
      throw Corrupt("the state of a ZBlk1 is no reference to an IOBTree");
    }
    object.cls = KnownClass::kZBlk1;
    object.compressed = false;
    object.chunktab = chunktab->oid;
    return object;
  } catch (const Error&) {
    rethrow_with_context(describe_object(ref.oid, ref.serial));
  }
}

std::vector<BlockObject> Objects::block_objects(std::span<const Ref> refs) const {
  std::vector<BlockObject> result(refs.size());
  std::vector<std::size_t> missing;
  std::vector<Oid> oids;
  for (std::size_t i = 0; i < refs.size(); ++i) {
    if (const auto cached = caches_.objects.find(refs[i].oid, at_)) {
      result[i] = *cached;
      check_class(refs[i], *cached, at_);
    } else {
      missing.push_back(i);
      oids.push_back(refs[i].oid);
    }
  }
  if (missing.empty()) return result;

  std::vector<std::optional<RecordRef>> located(oids.size());
  storage_.locate(oids, at_, located);
  std::vector<std::byte> heads(oids.size() * kPayloadHeadSize);
  std::vector<ReadPart> parts;
  for (std::size_t i = 0; i < oids.size(); ++i) {
    if (!located[i]) throw_missing(oids[i], at_);
    const std::size_t size = std::min<std::uint64_t>(kPayloadHeadSize, located[i]->size);
    parts.push_back({*located[i], 0, {heads.data() + i * kPayloadHeadSize, size}});
  }
  storage_.read(parts);

  // Most records have told all with their first bytes; the others are needed whole.
  std::vector<std::size_t> rest;
  std::vector<Bytes> whole(oids.size());
  std::vector<ReadPart> whole_parts;
  for (std::size_t i = 0; i < oids.size(); ++i) {
    const RecordRef& ref = *located[i];
    if (const auto head = payload_head(parts[i].out, ref.size)) {
      result[missing[i]] = payload_object(*head, ref);
      continue;
    }
    rest.push_back(i);
    if (ref.size == parts[i].out.size()) {
      whole[i].assign(parts[i].out.begin(), parts[i].out.end());
      continue;
    }
    if (ref.size > max_record()) {
      throw Corrupt(describe_object(ref.oid, at_) + ": a record of " + std::to_string(ref.size) +
                    " bytes, where no block is longer than " + std::to_string(max_payload_));
    }
    whole[i].resize(ref.size);
    whole_parts.push_back({ref, 0, whole[i]});
  }
  if (!whole_parts.empty()) storage_.read(whole_parts);
  for (const std::size_t i : rest) {
    result[missing[i]] = from_whole_record(*located[i], std::move(whole[i]));
  }

  for (const std::size_t i : missing) {
    const BlockObject& object = result[i];
    check_class(refs[i], object, at_);
    caches_.objects.insert(object.ref.oid, object.ref.serial, at_, object, 0);
    if (object.cls == KnownClass::kZData && !object.compressed && object.length >= 256) {
      caches_.zdata_offset.store(object.offset, std::memory_order_relaxed);
    }
  }
  return result;
}

std::vector<std::optional<KnownClass>> Objects::classes(std::span<const Oid> oids) const {
  std::vector<std::optional<KnownClass>> result(oids.size());
  std::vector<std::optional<RecordRef>> located(oids.size());
  storage_.locate(oids, at_, located);
  // The first bytes of a record name its class, unless it is compressed.
  std::vector<std::byte> heads(oids.size() * kPayloadHeadSize);
  std::vector<ReadPart> parts;
  std::vector<std::size_t> index;
  for (std::size_t i = 0; i < oids.size(); ++i) {
    if (!located[i]) continue;
    const std::size_t size = std::min<std::uint64_t>(kPayloadHeadSize, located[i]->size);
    parts.push_back({*located[i], 0, {heads.data() + i * kPayloadHeadSize, size}});
    index.push_back(i);
  }
  storage_.read(parts);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (!is_compressed(parts[i].out)) {
      try {
        PickleReader reader(parts[i].out);
        Value cls = reader.next();
        if (cls.kind() == Kind::kTuple && cls.size() > 0) cls = cls[0];
        if (const auto id = cls.class_id()) result[index[i]] = id->known();
        if (cls.kind() == Kind::kClass) continue;
      } catch (const Corrupt&) {
        // Cut off in the middle of an unusual class pickle.
      }
    }
    const auto object = load_object(storage_, parts[i].ref.oid, at_);
    if (object && object->record.id()) result[index[i]] = object->record.id()->known();
  }
  return result;
}

std::shared_ptr<const Bytes> Objects::inflated(const BlockObject& object) const {
  if (auto cached = caches_.inflated.find(object.ref.oid, at_)) return std::move(*cached);
  Bytes data(object.ref.size);
  storage_.read(object.ref, 0, data);
  try {
    auto result = std::make_shared<const Bytes>(inflate_record(std::move(data), max_record()));
    if (object.offset + object.length > result->size()) {
      throw Corrupt("its record is shorter than it was");
    }
    caches_.inflated.insert(object.ref.oid, object.ref.serial, at_, result, result->size());
    return result;
  } catch (const Error&) {
    rethrow_with_context(describe_object(object.ref.oid, object.ref.serial));
  }
}

void Objects::read_payload(const BlockObject& object, std::uint64_t offset,
                           std::span<std::byte> out, std::vector<ReadPart>& parts) const {
  if (out.empty()) return;
  invariant(holds_payload(object.cls) && offset + out.size() <= object.length,
            "a read past the payload of a block object");
  if (!object.compressed) {
    parts.push_back({object.ref, object.offset + offset, out});
    return;
  }
  const auto data = inflated(object);
  std::memcpy(out.data(), data->data() + object.offset + offset, out.size());
}

}  // namespace zbig
