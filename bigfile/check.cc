// SPDX-License-Identifier: BSD-3-Clause

#include "bigfile/check.h"

#include <algorithm>

#include "bigfile/tree_check.h"
#include "bigfile/view.h"
#include "zodb/error.h"
#include "zodb/payload.h"
#include "zodb/record.h"
#include "zodb/references.h"

namespace zbig {
namespace {

constexpr std::size_t kReadStep = 4u << 20;

// Reads all of a record that is too long to be loaded: the payload of a large block.
void read_through(const Storage& storage, const RecordRef& ref) {
  Bytes buffer(kReadStep);
  for (std::uint64_t at = 0; at < ref.size; at += kReadStep) {
    const std::uint64_t part = std::min<std::uint64_t>(kReadStep, ref.size - at);
    storage.read(ref, at, std::span(buffer).first(static_cast<std::size_t>(part)));
    if (at > 0) continue;
    const std::size_t head =
        static_cast<std::size_t>(std::min<std::uint64_t>(part, kPayloadHeadSize));
    if (!payload_head(std::span(buffer).first(head), ref.size)) {
      throw Corrupt("a record of " + std::to_string(ref.size) + " bytes is no block");
    }
  }
}

// What the class of an object demands of its state, beyond being a pickle.
void check_class(const ObjectRecord& record) {
  if (!record.id()) return;
  switch (record.id()->known()) {
    case KnownClass::kLOBTree:
    case KnownClass::kLOBucket:
    case KnownClass::kIOBTree:
    case KnownClass::kIOBucket:
      decode_btree_node(record);
      break;
    case KnownClass::kZBlk0:
    case KnownClass::kZData:
      if (!record.state().bytes()) throw Corrupt("the state of a block is no byte string");
      break;
    case KnownClass::kZBlk1:
      if (!record.state().ref()) throw Corrupt("the state of a ZBlk1 is no reference");
      break;
    default:
      break;  // volumes and folders are looked at as such
  }
}

}  // namespace

void Checker::defect(const std::string& sentence) {
  ++counts_.defects;
  on_defect_(sentence);
}

void Checker::step() {
  if (progress_) progress_(++steps_);
}

// Runs `action`; what it finds corrupt becomes a defect. An unavailable storage or a failing disk
// ends the check: that is no answer about the database.
template <class Action>
bool Checker::guarded(const std::string& context, const Action& action) {
  step();
  try {
    action();
    return true;
  } catch (const Corrupt& error) {
    defect(context + error.what());
  } catch (const Unsupported& error) {
    defect(context + error.what());
  } catch (const NotFound& error) {
    defect(context + error.what());
  }
  return false;
}

void Checker::check_storage() {
  storage_->check([this](const std::string& sentence) { defect(sentence); });
}

void Checker::check_revision(Oid oid, Tid tid) {
  const auto ref = storage_->locate(oid, tid);
  if (!ref || ref->serial != tid) {
    throw Corrupt(describe_object(oid, tid) + ": the transaction says that it stored it, and a " +
                  "load finds " + (ref ? "the one of " + ref->serial.hex() : "nothing"));
  }
  if (ref->size > Storage::kMaxLoad) return read_through(*storage_, *ref);
  const auto object = load_object(*storage_, oid, tid);
  if (!object) return;
  try {
    check_class(object->record);
  } catch (const Error&) {
    rethrow_with_context(describe_object(oid, tid));
  }
}

void Checker::check_history() {
  struct Stored {
    Oid oid;
    Tid tid;
  };
  std::vector<Stored> all;
  const Tid head = storage_->last_tid();
  const auto cursor = storage_->transactions(kNoTid, head, /*backwards=*/false);
  guarded("", [&] {
    while (const auto transaction = cursor->next()) {
      ++counts_.transactions;
      for (const auto& stored : transaction->stored) {
        ++counts_.records;
        all.push_back({stored.oid, stored.size == 0 ? kNoTid : transaction->tid});
        if (stored.size == 0) continue;
        const bool sound = guarded("", [&] { check_revision(stored.oid, transaction->tid); });
        if (sound) {
          defective_.erase(stored.oid);
        } else {
          defective_.insert(stored.oid);
        }
      }
    }
  });
  // The newest revision of each object comes last among its own.
  std::stable_sort(all.begin(), all.end(),
                   [](const Stored& a, const Stored& b) { return a.oid < b.oid; });
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (i + 1 < all.size() && all[i + 1].oid == all[i].oid) continue;
    guarded("", [&] {
      const auto ref = storage_->locate(all[i].oid, head);
      const Tid found = ref ? ref->serial : kNoTid;
      if (found == all[i].tid) return;
      throw Corrupt(describe_object(all[i].oid, head) + ": the newest revision is that of " +
                    all[i].tid.hex() + ", and the index leads to " + found.hex());
    });
  }
}

std::vector<Oid> Checker::check_object(Oid oid, Tid at) {
  const auto ref = storage_->locate(oid, at);
  if (!ref) throw Corrupt(describe_object(oid, at) + ": it is referred to and does not exist");
  std::vector<Oid> references;
  if (ref->size > Storage::kMaxLoad) {
    read_through(*storage_, *ref);
    return references;
  }
  const auto object = load_object(*storage_, oid, at);
  if (!object) return references;
  try {
    check_class(object->record);
  } catch (const Error&) {
    rethrow_with_context(describe_object(oid, at));
  }
  for (const PersistentRef& reference : references_in(object->record.state())) {
    references.push_back(reference.oid);
  }
  return references;
}

void Checker::check_objects() {
  const Tid head = storage_->last_tid();
  if (!storage_->locate(kRootOid, head)) {
    if (counts_.transactions > 0) defect("the root object is missing");
    return;
  }
  std::unordered_set<Oid> seen{kRootOid};
  std::vector<std::pair<Oid, Oid>> todo{{kRootOid, kRootOid}};  // with who refers to it
  while (!todo.empty()) {
    const auto [oid, parent] = todo.back();
    todo.pop_back();
    ++counts_.objects;
    if (defective_.contains(oid)) continue;
    const std::string context = "reached from object " + parent.brief() + ": ";
    guarded(context, [&, oid = oid] {
      for (const Oid reference : check_object(oid, head)) {
        if (seen.insert(reference).second) todo.emplace_back(reference, oid);
      }
    });
  }
}

void Checker::check_volume(const Volume& volume, Tid at) {
  std::vector<std::int64_t> blocks;
  TreeCheck(*storage_, at, KnownClass::kLOBTree, [&](const std::string& sentence) {
    defect(volume.path + ": block table: " + sentence);
  }).walk(volume.blktab, [&](std::int64_t key, const Ref&) { blocks.push_back(key); });

  std::shared_ptr<const View> view;
  if (!guarded(volume.path + ": ", [&] { view = View::open(storage_, volume, at); })) return;
  Bytes buffer(static_cast<std::size_t>(std::min<std::uint64_t>(kReadStep, volume.blksize)));
  for (const std::int64_t block : blocks) {
    ++counts_.blocks;
    const std::string context = volume.path + ": block " + std::to_string(block) + ": ";
    if (block < 0 ||
        static_cast<std::uint64_t>(block) > (std::uint64_t{1} << 63) / volume.blksize - 1) {
      defect(context + "its number is out of range");
      continue;
    }
    guarded(context, [&] {
      const std::uint64_t start = static_cast<std::uint64_t>(block) * volume.blksize;
      for (std::uint64_t at_byte = 0; at_byte < volume.blksize; at_byte += buffer.size()) {
        const std::uint64_t left = volume.blksize - at_byte;
        const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), left));
        view->read(start + at_byte, std::span(buffer).first(part));
      }
    });
  }
}

}  // namespace zbig
