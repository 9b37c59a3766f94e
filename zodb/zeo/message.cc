// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/message.h"

#include <variant>

#include "zodb/error.h"
#include "zodb/pickle_reader.h"
#include "zodb/zeo/msgpack.h"

namespace zbig::zeo {

// Keeps the values of one message.
class Message::Reader {
 public:
  Reader(Encoding encoding, ByteView payload) {
    if (encoding == Encoding::kMsgpack) {
      reader_.emplace<MsgpackReader>(payload);
    } else {
      reader_.emplace<PickleReader>(payload);
    }
  }
  Value read() {
    if (auto* msgpack = std::get_if<MsgpackReader>(&reader_)) return complete(*msgpack);
    return complete(std::get<PickleReader>(reader_));
  }

 private:
  template <class AnyReader>
  static Value complete(AnyReader& reader) {
    const Value value = reader.next();
    if (!reader.at_end()) throw Corrupt("there are bytes behind the message");
    return value;
  }

  std::variant<std::monostate, MsgpackReader, PickleReader> reader_;
};

Message Message::decode(Encoding encoding, Frame frame) {
  auto reader = std::make_shared<Reader>(encoding, frame.view());
  const auto parts = sequence(reader->read());
  if (!parts || parts->size() != 4) throw Corrupt("a message is a sequence of four");
  const auto flag = (*parts)[1].integer();
  const auto name = (*parts)[2].text();
  if (!flag || !name) throw Corrupt("a message has a flag and a name");
  Message message;
  message.frame_ = std::move(frame);
  message.reader_ = std::move(reader);
  message.id_ = (*parts)[0].integer().value_or(-1);
  message.flag_ = *flag;
  message.name_ = *name;
  message.args_ = (*parts)[3];
  return message;
}

std::optional<std::span<const Value>> sequence(Value value) {
  if (value.kind() != Kind::kTuple && value.kind() != Kind::kList) return std::nullopt;
  return value.items();
}

std::optional<std::uint64_t> id_of(Value value) {
  const auto bytes = value.bytes();
  if (!bytes || bytes->size() != 8) return std::nullopt;
  return get_be<8>(bytes->data());
}

}  // namespace zbig::zeo
