// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "zodb/bytes.h"
#include "zodb/class_name.h"
#include "zodb/ids.h"
#include "zodb/pickle_value.h"

// Records as ZODB writes them, to the byte.
//
// Four generations of programs have written databases, each with its own pickle protocol, opcode
// for byte strings, and habit of naming things in the memo. What is added to a database is written
// as the rest of it is: an old Python 2 cannot read what a Python 3 writes, nor the other way
// round.
//
// The habits. Python 3 gives a memo number, from 0, to every class, tuple that is not empty, string
// and container. Python 2 numbers from 1, and leaves out what nothing else holds: of what zbig
// writes, all tuples but the state itself, and payloads; with protocol 3 oids too. Both write the
// second mention of a thing as its number.

namespace zbig {

enum class Flavour : std::uint8_t {
  kPython3,           // ZODB >= 4 on Python 3: protocol 3
  kPython2Protocol3,  // ZODB >= 5.4 on Python 2
  kPython2Protocol2,  // ZODB 5.3 on Python 2
  kPython2Protocol1,  // ZODB <= 5.2
};

// Which of them wrote this record (any record that is not compressed). Records whose pickler used
// no memo count as Python 3's, if the protocol is 3.
Flavour detect_flavour(ByteView record);

// Writes one record: the class, then the state by calls in the order of the pickle. Tuples are told
// their size when they begin.
class RecordWriter {
 public:
  RecordWriter(Flavour flavour, ClassName cls);

  void none();
  void boolean(bool value);
  void integer(std::int64_t value);
  // A byte string (in Python 2 flavours a str). No copy is kept to refer to it again.
  void bytes(ByteView value);
  // A native string: unicode in Python 3, str in Python 2. The second mention is a memo number.
  void text(std::string_view value);
  void global(ClassName cls);
  // A persistent reference: (oid, class), or as `form` says.
  void ref(Oid oid, ClassName cls, RefForm form = RefForm::kClass);

  void begin_tuple(std::size_t size);
  void end_tuple();
  // Between them: `size` times a key and a value. At most 1000, above which Python makes batches.
  void begin_dict(std::size_t size);
  void end_dict();
  // Behind a global and a tuple of arguments: calls it.
  void reduce();
  // Behind an object and a state: gives it to it.
  void build();

  // The record. The writer is used up.
  Bytes finish();

 private:
  void op(char code) { out_.push_back(static_cast<std::byte>(code)); }
  void raw(std::string_view text) { append(out_, text); }
  void little_endian(std::uint64_t value, int size);
  void start_pickle();
  void put();
  void put_named(std::string name);
  bool get_named(const std::string& name);
  void oid(Oid oid);
  void string_value(ByteView value);

  bool python3() const { return flavour_ == Flavour::kPython3; }
  int protocol() const;

  Flavour flavour_;
  Bytes out_;
  std::uint32_t next_memo_;
  // What a later mention may refer to, by kind and content.
  std::unordered_map<std::string, std::uint32_t> named_;
  std::vector<std::size_t> open_;  // sizes of the tuples and dicts being written
};

// The two ends of a payload's record; the payload itself goes between them, uncopied:
// store({head, payload, tail}).
struct PayloadEnvelope {
  Bytes head;
  Bytes tail;
};
// Of a ZBlk0 or ZData with `size` bytes of payload (already trimmed), as spelled by `cls`.
PayloadEnvelope payload_envelope(Flavour flavour, ClassId cls, std::uint64_t size);

}  // namespace zbig
