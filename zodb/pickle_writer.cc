// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/pickle_writer.h"

#include <array>
#include <limits>
#include <utility>

#include "zodb/error.h"
#include "zodb/pickle_reader.h"

namespace zbig {

Flavour detect_flavour(ByteView record) {
  const std::string_view text = as_text(record);
  if (!text.starts_with('\x80')) return Flavour::kPython2Protocol1;
  if (text.starts_with("\x80\x02")) return Flavour::kPython2Protocol2;
  // Both Pythons write protocol 3, but number the class differently: q 0 or q 1, then STOP.
  PickleReader reader(record);
  reader.next();
  const std::size_t end = reader.offset();
  const bool numbered_from_1 = end >= 3 && text.substr(end - 3, 3) == "q\x01.";
  return numbered_from_1 ? Flavour::kPython2Protocol3 : Flavour::kPython3;
}

RecordWriter::RecordWriter(Flavour flavour, ClassName cls)
    : flavour_(flavour), next_memo_(flavour == Flavour::kPython3 ? 0 : 1) {
  start_pickle();
  global(cls);
  op('.');
  start_pickle();
}

void RecordWriter::start_pickle() {
  if (flavour_ == Flavour::kPython2Protocol1) return;
  raw(flavour_ == Flavour::kPython2Protocol2 ? "\x80\x02" : "\x80\x03");
}

void RecordWriter::little_endian(std::uint64_t value, int size) {
  for (int i = 0; i < size; ++i, value >>= 8) op(static_cast<char>(value & 0xff));
}

std::uint32_t RecordWriter::put() {
  const bool small = next_memo_ < 256;
  op(small ? 'q' : 'r');
  little_endian(next_memo_, small ? 1 : 4);
  return next_memo_++;
}

void RecordWriter::get(std::uint32_t number) {
  const bool small = number < 256;
  op(small ? 'h' : 'j');
  little_endian(number, small ? 1 : 4);
}

void RecordWriter::none() { op('N'); }

void RecordWriter::boolean(bool value) {
  if (flavour_ == Flavour::kPython2Protocol1)
    raw(value ? "I01\n" : "I00\n");
  else
    op(value ? '\x88' : '\x89');
}

void RecordWriter::integer(std::int64_t value) {
  if (value >= 0 && value < 0x100) {
    op('K');
    little_endian(static_cast<std::uint64_t>(value), 1);
  } else if (value >= 0 && value < 0x10000) {
    op('M');
    little_endian(static_cast<std::uint64_t>(value), 2);
  } else if (value >= std::numeric_limits<std::int32_t>::min() &&
             value <= std::numeric_limits<std::int32_t>::max()) {
    op('J');
    little_endian(static_cast<std::uint64_t>(value), 4);
  } else if (python3()) {
    int size = 5;
    while (size < 8 && (value >> (8 * size - 1)) != (value < 0 ? -1 : 0)) ++size;
    op('\x8a');
    op(static_cast<char>(size));
    little_endian(static_cast<std::uint64_t>(value), size);
  } else {
    raw("I" + std::to_string(value) + "\n");
  }
}

void RecordWriter::string(char short_op, char long_op, std::uint64_t size) {
  if (size > 0xffffffff) throw Invalid("a string of more than 4 GiB cannot be pickled");
  op(size < 256 ? short_op : long_op);
  little_endian(size, size < 256 ? 1 : 4);
}

void RecordWriter::begin_bytes(std::uint64_t size) {
  if (python3())
    string('C', 'B', size);
  else
    string('U', 'T', size);
}

void RecordWriter::end_bytes(std::uint64_t size) {
  if (python3() || size >= 2) put();
}

void RecordWriter::bytes(ByteView value) {
  begin_bytes(value.size());
  append(out_, value);
  end_bytes(value.size());
}

void RecordWriter::text(std::string_view value) {
  if (const auto known = texts_.find(std::string(value)); known != texts_.end())
    return get(known->second);
  if (python3()) {
    op('X');
    little_endian(value.size(), 4);
  } else {
    string('U', 'T', value.size());
  }
  raw(value);
  if (python3() || value.size() >= 2) texts_.emplace(value, put());
}

void RecordWriter::global(ClassName cls) {
  for (const auto& [name, number] : classes_)
    if (name == cls) return get(number);
  op('c');
  raw(cls.module);
  op('\n');
  raw(cls.name);
  op('\n');
  classes_.emplace_back(cls, put());
}

void RecordWriter::oid(Oid oid) {
  const bool memo = flavour_ != Flavour::kPython2Protocol3;
  if (memo)
    if (const auto known = oids_.find(oid); known != oids_.end()) return get(known->second);
  std::array<std::byte, 8> bytes;
  put_be<8>(bytes.data(), oid.value);
  const bool is_str =
      flavour_ == Flavour::kPython2Protocol1 || flavour_ == Flavour::kPython2Protocol2;
  op(is_str ? 'U' : 'C');
  op(8);
  append(out_, bytes);
  if (memo) oids_.emplace(oid, put());
}

void RecordWriter::ref(Oid target, ClassName cls, RefForm form) {
  invariant(form != RefForm::kForeign, "references into other databases are never written");
  if (form == RefForm::kOid) {
    oid(target);
    op('Q');
    return;
  }
  open_tuple(2, false);
  oid(target);
  if (form == RefForm::kClass) {
    global(cls);
  } else {
    open_tuple(2, false);
    text(cls.module);
    text(cls.name);
    end_tuple();
  }
  end_tuple();
  op('Q');
}

void RecordWriter::begin_tuple(std::size_t size, bool held) {
  open_tuple(size, held || open_.empty());
}

void RecordWriter::open_tuple(std::size_t size, bool held) {
  open_.push_back({size, held});
  const bool counted = size <= 3 && flavour_ != Flavour::kPython2Protocol1;
  if (size > 0 && !counted) op('(');
}

void RecordWriter::end_tuple() {
  const Open tuple = open_.back();
  open_.pop_back();
  if (tuple.size == 0) {
    op(')');
    return;
  }
  if (tuple.size <= 3 && flavour_ != Flavour::kPython2Protocol1)
    op(static_cast<char>('\x84' + static_cast<char>(tuple.size)));
  else
    op('t');
  if (python3() || tuple.held) put();
}

void RecordWriter::begin_dict(std::size_t size) {
  invariant(size <= 1000, "a dict is written in one batch");
  open_.push_back({size, true});
  op('}');
  put();
  if (size > 1) op('(');
}

void RecordWriter::end_dict() {
  const Open dict = open_.back();
  open_.pop_back();
  if (dict.size > 0) op(dict.size == 1 ? 's' : 'u');
}

void RecordWriter::reduce() {
  op('R');
  put();
}

void RecordWriter::build() { op('b'); }

Bytes RecordWriter::finish() {
  invariant(open_.empty(), "every tuple and dict of a record is closed");
  op('.');
  return std::move(out_);
}

PayloadEnvelope payload_envelope(Flavour flavour, ClassId cls, std::uint64_t size) {
  PayloadEnvelope envelope;
  RecordWriter writer(flavour, cls.name());
  writer.begin_bytes(size);
  envelope.head = std::exchange(writer.out_, {});
  writer.end_bytes(size);
  envelope.tail = writer.finish();
  return envelope;
}

}  // namespace zbig
