// SPDX-License-Identifier: BSD-3-Clause

// Any stream as a ZEO server's: frames, and each of them in both encodings a message or an Error.

#include <algorithm>
#include <cstdint>

#include "zodb/error.h"
#include "zodb/zeo/frame.h"
#include "zodb/zeo/message.h"

namespace {

void decode(zbig::zeo::Encoding encoding, const zbig::zeo::Frame& frame) {
  try {
    const auto message = zbig::zeo::Message::decode(encoding, frame);
    volatile bool used = message.is_exception();
    if (const auto items = zbig::zeo::sequence(message.args())) {
      for (const zbig::Value item : *items) used = zbig::zeo::id_of(item).has_value();
    }
    static_cast<void>(used);
  } catch (const zbig::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  zbig::ByteView stream(reinterpret_cast<const std::byte*>(data), size);
  zbig::zeo::FrameReader reader;
  try {
    while (!stream.empty()) {
      const auto room = reader.room();
      const auto piece = stream.first(std::min(room.size(), stream.size()));
      std::ranges::copy(piece, room.begin());
      reader.advance(piece.size(), [](const zbig::zeo::Frame& frame) {
        decode(zbig::zeo::Encoding::kMsgpack, frame);
        decode(zbig::zeo::Encoding::kPickle, frame);
      });
      stream = stream.subspan(piece.size());
    }
  } catch (const zbig::Error&) {
  }
  return 0;
}
