// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/record.h"

#include <algorithm>

#include <zlib.h>

#include "zodb/error.h"

namespace zbig {

// docs/formats/pickle.md: a class or (module, name), alone or in a pair with constructor arguments.
ClassName record_class(Value first_pickle) {
  const auto pair = first_pickle.tuple(2);
  const Value cls = pair ? (*pair)[0] : first_pickle;
  if (const auto name = cls.class_name()) return *name;
  if (const auto names = cls.tuple(2)) {
    const auto module = (*names)[0].text();
    const auto name = (*names)[1].text();
    if (module && name) return {*module, *name};
  }
  throw Corrupt(std::string("the record's first pickle is ") + kind_name(cls.kind()) +
                ", not a class");
}

bool is_compressed(ByteView record) { return as_text(record).starts_with(".z"); }

Bytes inflate_record(Bytes record, std::uint64_t max_size) {
  if (!is_compressed(record)) return record;

  z_stream stream{};
  if (inflateInit(&stream) != Z_OK) throw Failed("zlib cannot start");
  const std::unique_ptr<z_stream, int (*)(z_stream*)> guard(&stream, inflateEnd);

  // Grows with what really comes out: a few bytes may claim, and even give, a thousand times as
  // much.
  Bytes out;
  std::size_t in_at = 2;
  int status = Z_OK;
  while (status != Z_STREAM_END) {
    if (out.size() >= max_size)
      throw Corrupt("compressed record: more than " + std::to_string(max_size) + " bytes inflated");
    constexpr std::size_t kStep = 1u << 30;  // zlib counts in unsigned int
    const std::size_t room = std::min<std::uint64_t>(
        {max_size - out.size(), std::max<std::size_t>(4 * record.size(), out.size()), kStep});
    const std::size_t filled = out.size();
    out.resize(filled + room);
    const std::size_t given = std::min(record.size() - in_at, kStep);
    stream.next_in = reinterpret_cast<Bytef*>(record.data() + in_at);
    stream.avail_in = static_cast<uInt>(given);
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + filled);
    stream.avail_out = static_cast<uInt>(room);
    status = inflate(&stream, Z_NO_FLUSH);
    in_at += given - stream.avail_in;
    out.resize(filled + room - stream.avail_out);
    if (status == Z_BUF_ERROR || (status == Z_OK && in_at == record.size() && stream.avail_out > 0))
      throw Corrupt("compressed record: the zlib stream is cut short");
    if (status != Z_OK && status != Z_STREAM_END)
      throw Corrupt(std::string("compressed record: ") + (stream.msg ? stream.msg : "not zlib"));
  }
  if (in_at != record.size()) throw Corrupt("compressed record: bytes behind the zlib stream");
  return out;
}

ObjectRecord::ObjectRecord(std::unique_ptr<Bytes> data, PickleReader reader, Value cls, Value state)
    : data_(std::move(data)),
      reader_(std::move(reader)),
      cls_(record_class(cls)),
      id_(ClassId::find(cls_)),
      state_(state) {}

ObjectRecord ObjectRecord::parse(Bytes data) {
  auto owned = std::make_unique<Bytes>(inflate_record(std::move(data)));
  if (owned->empty()) throw Corrupt("the record is empty");
  PickleReader reader(*owned);
  const Value cls = reader.next();
  const Value state = reader.next();
  if (!reader.at_end())
    throw Corrupt("the record has " + std::to_string(owned->size() - reader.offset()) +
                  " bytes behind its second pickle");
  return ObjectRecord(std::move(owned), std::move(reader), cls, state);
}

std::string describe_object(Oid oid, Tid at) {
  return "object " + oid.brief() + " at tid " + at.hex();
}

std::optional<LoadedObject> load_object(const Storage& storage, Oid oid, Tid at) {
  auto record = storage.load(oid, at);
  if (!record) return std::nullopt;
  try {
    return LoadedObject{oid, record->serial, ObjectRecord::parse(std::move(record->data))};
  } catch (const Error&) {
    rethrow_with_context(describe_object(oid, record->serial));
  }
}

}  // namespace zbig
