// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "zodb/bytes.h"
#include "zodb/class_name.h"
#include "zodb/ids.h"

// What a pickle says, as a tree of values to look at.
//
// Nothing of Python is run. What a pickle would make by calling something is a kObject: the
// callable, its arguments, and its state. Bytes and text are views into the record, in the flavour
// they were found.
//
// V1  A value is never its own descendant: the reader turns a container that contains itself into
//     kOpaque. But a value may be reached by many ways (a pickle names it again by its memo), so
//     the number of ways through a hostile pickle may be exponential: whoever walks deeper than the
//     schema that he expects must count what he visits.
//
// Values are handles, valid as long as the PickleReader (or ObjectRecord) that gave them.

namespace zbig {

enum class Kind : std::uint8_t {
  kNone,
  kBool,
  kInt,  // fits in 64 bits
  kFloat,
  kBytes,   // bytes of Python 3
  kString,  // str of Python 2, which is bytes or text as the program pleases
  kText,    // unicode, as UTF-8
  kTuple,
  kList,
  kDict,
  kClass,   // a global, by its name
  kRef,     // a persistent reference
  kObject,  // what calling a class gives
  kOpaque,  // anything else: a huge integer, an extension code, a container that contains itself
};
const char* kind_name(Kind kind);  // "None", "bool", "int", ..., for messages

// How a reference is spelled. The spelling takes part in conflict resolution of BTree buckets, so
// it is kept when a node is written back.
enum class RefForm : std::uint8_t {
  kClass,       // (oid, class): the one that is written
  kModuleName,  // (oid, (module, name)): after conflict resolution by a server without the class
  kOid,         // oid alone: nothing is said of the class
  kForeign,     // to another database, or weak: no use in a ZBigFile
};

struct PersistentRef {
  Oid oid;
  RefForm form = RefForm::kClass;
  ClassName cls;              // empty with kOid
  std::optional<ClassId> id;  // the same, if zbig knows it
};

class Value {
 public:
  struct Node;  // the reader's own
  explicit Value(const Node* node) : node_(node) {}

  Kind kind() const;
  bool is_none() const { return kind() == Kind::kNone; }
  // Where in the input the value ends to be made; for messages.
  std::size_t offset() const;

  std::optional<bool> boolean() const;
  std::optional<std::int64_t> integer() const;  // kInt, kBool
  std::optional<double> real() const;           // kFloat
  // Of kBytes, kString, kText, whichever it is; kText as UTF-8.
  std::optional<ByteView> bytes() const;
  std::optional<std::string_view> text() const;

  // kTuple, kList: the items. kDict: key, value, key, value... kObject: the callable, its
  // arguments (a tuple) and, if it was given one, its state; items that were appended or set are
  // not kept. Empty for anything else.
  std::span<const Value> items() const;
  std::size_t size() const { return items().size(); }
  Value operator[](std::size_t i) const { return items()[i]; }
  // Of a kDict the value under a key that is text or bytes; the last one if there are several.
  std::optional<Value> get(std::string_view key) const;
  // Of a kTuple of exactly `size` items these; nothing for anything else.
  std::optional<std::span<const Value>> tuple(std::size_t size) const;

  std::optional<ClassName> class_name() const;  // kClass
  std::optional<ClassId> class_id() const;      // kClass that zbig knows
  std::optional<PersistentRef> ref() const;     // kRef but not kForeign

  const Node* node() const { return node_; }

 private:
  const Node* node_;
};

}  // namespace zbig
