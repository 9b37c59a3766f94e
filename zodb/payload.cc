// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/payload.h"

#include <array>
#include <string_view>

#include "zodb/error.h"
#include "zodb/pickle_reader.h"
#include "zodb/record.h"

namespace zbig {
namespace {

// Reads the head of a record, opcode by opcode, and never past its end.
class Head {
 public:
  explicit Head(std::string_view text) : text_(text) {}

  std::size_t at() const { return at_; }
  bool skip(std::string_view expected) {
    if (text_.substr(at_, expected.size()) != expected) return false;
    at_ += expected.size();
    return true;
  }
  // PROTO 1 to 3, if it is there.
  void skip_protocol() {
    if (at_ + 1 < text_.size() && text_[at_] == '\x80' && text_[at_ + 1] >= 1 &&
        text_[at_ + 1] <= 3)
      at_ += 2;
  }
  // BINPUT of any index, if it is there.
  void skip_put() {
    if (at_ + 1 < text_.size() && text_[at_] == 'q') at_ += 2;
  }
  std::optional<std::uint64_t> little_endian(std::size_t size) {
    if (text_.size() - at_ < size) return std::nullopt;
    std::uint64_t value = 0;
    for (std::size_t i = size; i-- > 0;)
      value = value << 8 | static_cast<unsigned char>(text_[at_ + i]);
    at_ += size;
    return value;
  }

 private:
  std::string_view text_;
  std::size_t at_ = 0;
};

struct Opening {
  std::string_view global;  // the GLOBAL opcode
  ClassId cls;
};

const std::array<Opening, 3>& openings() {
  static const std::array<Opening, 3> table{{
      {"cwendelin.bigfile.file_zodb\nZBlk0\n",
       *ClassId::find({"wendelin.bigfile.file_zodb", "ZBlk0"})},
      {"cwendelin.bigfile.file_zodb\nZData\n",
       *ClassId::find({"wendelin.bigfile.file_zodb", "ZData"})},
      {"cwendelin.bigfile.file_zodb\nZBlk\n",
       *ClassId::find({"wendelin.bigfile.file_zodb", "ZBlk"})},
  }};
  return table;
}

bool holds_payload(std::optional<ClassId> cls) {
  return cls && (cls->known() == KnownClass::kZBlk0 || cls->known() == KnownClass::kZData);
}

}  // namespace

std::optional<PayloadHead> payload_head(ByteView bytes, std::uint64_t record_size) {
  Head head(as_text(bytes));
  head.skip_protocol();
  const Opening* opening = nullptr;
  for (const Opening& candidate : openings()) {
    if (head.skip(candidate.global)) {
      opening = &candidate;
      break;
    }
  }
  if (!opening) return std::nullopt;
  head.skip_put();
  if (!head.skip(".")) return std::nullopt;

  head.skip_protocol();
  std::optional<std::uint64_t> length;
  if (head.skip("B") || head.skip("T"))
    length = head.little_endian(4);
  else if (head.skip("C") || head.skip("U"))
    length = head.little_endian(1);
  if (!length) return std::nullopt;

  // Behind the payload: STOP, perhaps after BINPUT. Anything else is for the reader to judge.
  const std::uint64_t end = head.at() + *length;
  if (end + 1 != record_size && end + 3 != record_size) return std::nullopt;
  return PayloadHead{opening->cls, head.at(), *length};
}

std::optional<PayloadHead> find_payload(ByteView record) {
  PickleReader reader(record);
  const auto cls = ClassId::find(record_class(reader.next()));
  if (!holds_payload(cls)) return std::nullopt;
  const Value state = reader.next();
  const auto payload = state.bytes();
  if (!payload)
    throw Corrupt("the state of a " + std::string(cls->name().name) + " is " +
                  kind_name(state.kind()) + ", not bytes");
  // The string may not be in the record as it is meant (protocol 0 escapes it).
  const auto* begin = payload->data();
  if (begin < record.data() || begin + payload->size() > record.data() + record.size())
    throw Corrupt("the state of a " + std::string(cls->name().name) +
                  " is an escaped string, which ZODB does not write");
  return PayloadHead{*cls, static_cast<std::uint64_t>(begin - record.data()), payload->size()};
}

}  // namespace zbig
