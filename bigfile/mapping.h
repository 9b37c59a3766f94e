// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string_view>

#include "zodb/pickle_writer.h"
#include "zodb/record.h"

// Records of PersistentMapping: a new one, and an existing one with another entry.
//
// A mapping, the root above all, may hold anything that can be pickled, and is somebody else's
// object. So it is written anew only if that gives back, without the new entry, exactly the record
// that is there; then the result is what Python would write. If it does not (a float, a class with
// a state of its own, a string named twice), the new entry is put behind the last opcodes of the
// record as it is: a pickle that says the same and one entry more.

namespace zbig {

struct NewEntry {
  std::string_view name;
  Oid oid;
  KnownClass cls;
};

Bytes new_mapping(const NewEntry& entry, Flavour flavour);

// Throws Unsupported for a state that is no dict with the one item "data".
Bytes mapping_with(const ObjectRecord& mapping, const NewEntry& entry, Flavour flavour);

}  // namespace zbig
