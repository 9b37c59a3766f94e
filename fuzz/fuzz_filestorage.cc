// SPDX-License-Identifier: BSD-3-Clause

// Any bytes as a Data.fs, with any bytes as its index: what opens can be read or says why not; with
// the index it is what it is without; and after a writer opened it, it takes a commit.
//
// Input: a Data.fs; or the index's size in two bytes (little-endian), the index, a Data.fs.

#include <map>
#include <string>

#include "fuzz/place.h"
#include "zodb/error.h"
#include "zodb/filestorage/filestorage.h"

namespace {

using namespace zbig;

// A Data.fs of its own.
std::string fresh(const Place& place, ByteView file, ByteView index) {
  place.clear();
  const auto path = place / "Data.fs";
  Place::put(path, file);
  if (!index.empty()) Place::put(path + ".index", index);
  return path;
}

// Every transaction's tid and records, both ways; every record loaded.
std::map<Tid, std::size_t> read_all(const Storage& storage) {
  std::map<Tid, std::size_t> forwards;
  std::size_t backwards = 0;
  const auto cursor = storage.transactions(kNoTid, Tid{~std::uint64_t{0}}, false);
  while (const auto transaction = cursor->next()) {
    invariant(forwards.empty() || forwards.rbegin()->first < transaction->tid, "tids grow");
    forwards[transaction->tid] = transaction->stored.size();
    for (const auto& stored : transaction->stored) {
      try {
        const auto ref = storage.locate(stored.oid, transaction->tid);
        const auto record = storage.load(stored.oid, transaction->tid, 1 << 16);
        invariant(ref.has_value() == record.has_value(), "locate and load agree");
        if (ref) {
          Bytes data(static_cast<std::size_t>(ref->size));
          storage.read(*ref, 0, data);
          invariant(data == record->data, "read and load agree");
        }
        storage.history(stored.oid, 100);
      } catch (const Error&) {
      }
    }
  }
  const auto back = storage.transactions(kNoTid, Tid{~std::uint64_t{0}}, true);
  while (back->next()) ++backwards;
  invariant(backwards == forwards.size(), "both directions find the same");
  invariant(forwards.empty() || forwards.rbegin()->first <= storage.last_tid(),
            "the last tid is the last");
  return forwards;
}

std::map<Tid, std::size_t> read_file(const std::string& path) {
  try {
    return read_all(*open_filestorage(path, OpenMode::kRead));
  } catch (const Error&) {
    return {};
  }
}

void write_file(const std::string& path) {
  try {
    const auto storage = open_filestorage(path, OpenMode::kWrite);
    const auto transaction = storage->begin({"fuzzer", "", {}});
    transaction->store(storage->new_oid(), kNoTid, as_bytes("new"));
    transaction->vote();
    const auto tid = transaction->finish();
    invariant(open_filestorage(path, OpenMode::kRead)->last_tid() == tid, "a commit is there");
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Place place;
  ByteView file(reinterpret_cast<const std::byte*>(data), size);
  ByteView index;
  if (size >= 2 && data[0] != 'F') {
    const auto index_size = std::min<std::size_t>(data[0] | data[1] << 8, size - 2);
    index = file.subspan(2, index_size);
    file = file.subspan(2 + index_size);
  }
  read_file(fresh(place, file, index));
  write_file(fresh(place, file, index));
  write_file(fresh(place, file, {}));
  return 0;
}
