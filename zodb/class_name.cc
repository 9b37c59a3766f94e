// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/class_name.h"

#include <array>

#include "zodb/error.h"

namespace zbig {

// The spellings met in databases, the one that is written today first for each class. BTrees'
// modules of C classes and of pure Python classes have at times pickled under their own names.
class ClassTable {
 public:
  struct Row {
    ClassName name;
    KnownClass known;
  };
  static constexpr auto kRows = std::to_array<Row>({
      {{"wendelin.bigfile.file_zodb", "ZBigFile"}, KnownClass::kZBigFile},
      {{"wendelin.bigarray.array_zodb", "ZBigArray"}, KnownClass::kZBigArray},
      {{"wendelin.bigfile.file_zodb", "ZBlk0"}, KnownClass::kZBlk0},
      {{"wendelin.bigfile.file_zodb", "ZBlk"}, KnownClass::kZBlk0},  // until September 2015
      {{"wendelin.bigfile.file_zodb", "ZBlk1"}, KnownClass::kZBlk1},
      {{"wendelin.bigfile.file_zodb", "ZData"}, KnownClass::kZData},
      {{"BTrees.LOBTree", "LOBTree"}, KnownClass::kLOBTree},
      {{"BTrees.LOBTree", "LOBTreePy"}, KnownClass::kLOBTree},
      {{"BTrees._LOBTree", "LOBTree"}, KnownClass::kLOBTree},
      {{"BTrees.LOBTree", "LOBucket"}, KnownClass::kLOBucket},
      {{"BTrees.LOBTree", "LOBucketPy"}, KnownClass::kLOBucket},
      {{"BTrees._LOBTree", "LOBucket"}, KnownClass::kLOBucket},
      {{"BTrees.IOBTree", "IOBTree"}, KnownClass::kIOBTree},
      {{"BTrees.IOBTree", "IOBTreePy"}, KnownClass::kIOBTree},
      {{"BTrees._IOBTree", "IOBTree"}, KnownClass::kIOBTree},
      {{"BTrees.IOBTree", "IOBucket"}, KnownClass::kIOBucket},
      {{"BTrees.IOBTree", "IOBucketPy"}, KnownClass::kIOBucket},
      {{"BTrees._IOBTree", "IOBucket"}, KnownClass::kIOBucket},
      {{"BTrees.OOBTree", "OOBTree"}, KnownClass::kOOBTree},
      {{"BTrees.OOBTree", "OOBTreePy"}, KnownClass::kOOBTree},
      {{"BTrees._OOBTree", "OOBTree"}, KnownClass::kOOBTree},
      {{"BTrees.OOBTree", "OOBucket"}, KnownClass::kOOBucket},
      {{"BTrees.OOBTree", "OOBucketPy"}, KnownClass::kOOBucket},
      {{"BTrees._OOBTree", "OOBucket"}, KnownClass::kOOBucket},
      {{"persistent.mapping", "PersistentMapping"}, KnownClass::kPersistentMapping},
      {{"persistent.dict", "PersistentDict"}, KnownClass::kPersistentMapping},
      {{"Persistence.mapping", "PersistentMapping"}, KnownClass::kPersistentMapping},
      {{"Persistence", "PersistentMapping"}, KnownClass::kPersistentMapping},
      {{"ZODB.PersistentMapping", "PersistentMapping"}, KnownClass::kPersistentMapping},
      {{"PersistentMapping", "PersistentMapping"}, KnownClass::kPersistentMapping},
      {{"BoboPOS.PersistentMapping", "PersistentMapping"}, KnownClass::kPersistentMapping},
  });
};

std::string ClassName::str() const { return std::string(module) + "." + std::string(name); }

ClassId ClassId::of(KnownClass cls) {
  for (std::size_t i = 0; i < ClassTable::kRows.size(); ++i)
    if (ClassTable::kRows[i].known == cls) return ClassId(static_cast<std::uint8_t>(i));
  broken_invariant("every known class has a spelling", __FILE__, __LINE__);
}

std::optional<ClassId> ClassId::find(ClassName name) {
  for (std::size_t i = 0; i < ClassTable::kRows.size(); ++i)
    if (ClassTable::kRows[i].name == name) return ClassId(static_cast<std::uint8_t>(i));
  return std::nullopt;
}

ClassName ClassId::name() const { return ClassTable::kRows[row_].name; }
KnownClass ClassId::known() const { return ClassTable::kRows[row_].known; }

}  // namespace zbig
