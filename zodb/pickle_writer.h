// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
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
// and container. Python 2 numbers from 1, and leaves out strings of less than two bytes, tuples
// that nothing but the record holds (of what zbig writes: all but the state itself and tuples that
// are an attribute of an object), and with protocol 3 oids. Both write the second mention of a
// thing as its number.

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

// The two ends of a payload's record; the payload itself goes between them, uncopied:
// store({head, payload, tail}).
struct PayloadEnvelope {
  Bytes head;
  Bytes tail;
};
// Of a ZBlk0 or ZData with `size` bytes of payload (already trimmed), as spelled by `cls`. Throws
// Invalid above 4 GiB.
PayloadEnvelope payload_envelope(Flavour flavour, ClassId cls, std::uint64_t size);

// Writes one record: the class, then the state by calls in the order of the pickle. Tuples are told
// their size when they begin. Names of classes must live as long as the writer.
class RecordWriter {
 public:
  RecordWriter(Flavour flavour, ClassName cls);

  void none();
  void boolean(bool value);
  void integer(std::int64_t value);
  // A byte string (in Python 2 flavours a str). It cannot be mentioned again.
  void bytes(ByteView value);
  // A native string: unicode in Python 3, str in Python 2. The second mention is a memo number.
  void text(std::string_view value);
  void global(ClassName cls);
  // A persistent reference: (oid, class), or as `form` says.
  void ref(Oid oid, ClassName cls, RefForm form = RefForm::kClass);

  // `held`: an attribute of an object is this tuple.
  void begin_tuple(std::size_t size, bool held = false);
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
  friend PayloadEnvelope payload_envelope(Flavour flavour, ClassId cls, std::uint64_t size);
  struct Open {  // a tuple or dict that is being written
    std::size_t size;
    bool held;
  };

  void op(char code) { out_.push_back(static_cast<std::byte>(code)); }
  void raw(std::string_view text) { append(out_, text); }
  void little_endian(std::uint64_t value, int size);
  void start_pickle();
  // A string's opcode and length; its bytes are to follow.
  void string(char short_op, char long_op, std::uint64_t size);
  void begin_bytes(std::uint64_t size);
  void end_bytes(std::uint64_t size);
  void open_tuple(std::size_t size, bool held);
  // Gives the value just written the next memo number, and returns it.
  std::uint32_t put();
  void get(std::uint32_t number);
  void oid(Oid oid);

  bool python3() const { return flavour_ == Flavour::kPython3; }

  Flavour flavour_;
  Bytes out_;
  std::uint32_t next_memo_;
  // Memo numbers of what may be mentioned again. Classes are few, and looked for one by one.
  std::vector<std::pair<ClassName, std::uint32_t>> classes_;
  std::unordered_map<std::string, std::uint32_t> texts_;
  std::unordered_map<Oid, std::uint32_t> oids_;
  std::vector<Open> open_;
};

}  // namespace zbig
