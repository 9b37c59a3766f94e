// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "zodb/bytes.h"
#include "zodb/class_name.h"
#include "zodb/pickle_reader.h"
#include "zodb/pickle_value.h"
#include "zodb/storage.h"

// A database record as an object: its class and its state.
//
// The class is written in one of seven ways (with or without constructor arguments, by reference or
// by name); what matters is the name. A record that zc.zlibstorage compressed begins with ".z"; no
// pickle does.

namespace zbig {

// Does the record begin as zc.zlibstorage's do?
bool is_compressed(ByteView record);
// The record in the clear: itself, or inflated. Throws Corrupt if it is no zlib stream, or gives
// more than `max_size` bytes.
Bytes inflate_record(Bytes record, std::uint64_t max_size = Storage::kMaxLoad);

// The class that a record's first pickle says, in any of its forms. Throws Corrupt.
ClassName record_class(Value first_pickle);

class ObjectRecord {
 public:
  // Takes a record as a storage gave it. Throws Corrupt.
  static ObjectRecord parse(Bytes data);

  ClassName cls() const { return cls_; }
  // Nothing if zbig does not know the class.
  std::optional<ClassId> id() const { return id_; }
  bool is(KnownClass known) const { return id_ && id_->known() == known; }
  Value state() const { return state_; }
  ByteView data() const { return *data_; }  // in the clear

 private:
  ObjectRecord(std::unique_ptr<Bytes> data, PickleReader reader, Value cls, Value state);
  std::unique_ptr<Bytes> data_;
  PickleReader reader_;
  ClassName cls_;
  std::optional<ClassId> id_;
  Value state_;
};

struct LoadedObject {
  Oid oid;
  Tid serial;
  ObjectRecord record;
};

// The object as of `at`, or nothing if it does not exist then. Errors name it: "object 0x2a at tid
// 03f1...: ...".
std::optional<LoadedObject> load_object(const Storage& storage, Oid oid, Tid at);

// "object 0x2a at tid 03f1..."
std::string describe_object(Oid oid, Tid at);

}  // namespace zbig
