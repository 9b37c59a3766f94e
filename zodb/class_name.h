// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

// Names of Python classes, and the classes that zbig knows.
//
// A record says its class by module and name, and so does every reference to it. Some classes have
// gone by several names over the years (ZBlk became ZBlk0 in 2015; BTrees has a C and a Python
// spelling of each class). A KnownClass is what a name means; a ClassId is a known class as it was
// spelled, in one byte, so that a tree node with a thousand references keeps each spelling and can
// be written back exactly as it was read.

namespace zbig {

// Views; valid as long as what they were read from. The literal of a known class is static.
struct ClassName {
  std::string_view module;
  std::string_view name;
  bool operator==(const ClassName&) const = default;
  std::string str() const;  // "module.name"
};

enum class KnownClass : std::uint8_t {
  kZBigFile,
  kZBigArray,
  kZBlk0,
  kZBlk1,
  kZData,
  kLOBTree,
  kLOBucket,
  kIOBTree,
  kIOBucket,
  kOOBTree,
  kOOBucket,
  kPersistentMapping,
};

// A row of the table of spellings (class_name.cc).
class ClassId {
 public:
  // The spelling that is written for a class today.
  static ClassId of(KnownClass cls);
  // Nothing if zbig does not know the name.
  static std::optional<ClassId> find(ClassName name);

  ClassName name() const;
  KnownClass known() const;
  // The same class, perhaps in another spelling.
  bool same_class(ClassId other) const { return known() == other.known(); }
  bool operator==(const ClassId&) const = default;

 private:
  explicit ClassId(std::uint8_t row) : row_(row) {}
  friend class ClassTable;
  std::uint8_t row_;
};

}  // namespace zbig
