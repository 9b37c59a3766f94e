// SPDX-License-Identifier: BSD-3-Clause

// Any records as the nodes of a tree: walks end, and an editor leaves what it can read.
//
// Input: records, each behind two bytes of oid and two of length, little-endian. Root: oid 1.

#include <algorithm>

#include "bigfile/tree_check.h"
#include "tests/support/memory_storage.h"
#include "zodb/btree_editor.h"
#include "zodb/error.h"

namespace {

using namespace zbig;

constexpr Oid kRoot{1};

template <typename Action>
void if_sound(Action action) {
  try {
    action();
  } catch (const Error&) {
  }
}

void edit(const Storage& storage, Tid at, KnownClass cls) {
  const StorageNodeSource source(storage, at);
  std::uint64_t next_oid = 1u << 20;
  BTreeEditor editor(source, kRoot, cls, [&] { return Oid{next_oid++}; },
                     {.max_leaf = 4, .max_internal = 4});
  // An editor that failed is of no use, but no danger either.
  if_sound([&] {
    for (std::int64_t key = 0; key < 40; ++key)
      editor.set(key * 7 % 41, ref_to(Oid{5}, KnownClass::kZBlk0));
  });
  if_sound([&] {
    for (std::int64_t key = 0; key < 40; ++key) editor.erase(key * 5 % 41);
  });
  for (const auto& store : editor.stores(Flavour::kPython3))
    static_cast<void>(decode_btree_node(ObjectRecord::parse(store.record)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteView input(reinterpret_cast<const std::byte*>(data), size);
  std::vector<std::pair<Oid, std::optional<Bytes>>> records;
  for (std::size_t at = 0; at + 4 <= input.size();) {
    const auto number = [&](std::size_t i) {
      return std::size_t{data[i]} | std::size_t{data[i + 1]} << 8;
    };
    const std::size_t length = std::min(number(at + 2), input.size() - at - 4);
    const ByteView record = input.subspan(at + 4, length);
    records.emplace_back(Oid{number(at)}, Bytes(record.begin(), record.end()));
    at += 4 + length;
  }

  test::MemoryStorage storage;
  const Tid at = storage.commit(records);
  for (const KnownClass cls : {KnownClass::kLOBTree, KnownClass::kIOBTree}) {
    const StorageNodeSource source(storage, at);
    std::int64_t last = kMinKey;
    if_sound([&] {
      BTree(source, kRoot, cls).for_each(kMinKey, kMaxKey, [&](std::int64_t key, const Ref&) {
        invariant(key > last || last == kMinKey, "keys of a walk increase");
        last = key;
        return true;
      });
    });
    TreeCheck(storage, at, cls, [](const std::string&) {}).walk(kRoot, [](auto, const Ref&) {});
    edit(storage, at, cls);
  }
  if_sound([&] { list_folder(storage, kRoot, at); });
  return 0;
}
