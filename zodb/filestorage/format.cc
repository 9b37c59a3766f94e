// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/filestorage/format.h"

namespace zbig::fs {

TransactionHeader TransactionHeader::parse(const std::byte* at) {
  TransactionHeader header;
  header.tid = Tid{get_be<8>(at)};
  header.length = get_be<8>(at + 8);
  header.status = static_cast<char>(at[kStatusOffset]);
  header.user_size = static_cast<std::uint16_t>(get_be<2>(at + 17));
  header.description_size = static_cast<std::uint16_t>(get_be<2>(at + 19));
  header.extension_size = static_cast<std::uint16_t>(get_be<2>(at + 21));
  return header;
}

std::array<std::byte, TransactionHeader::kSize> TransactionHeader::encode() const {
  std::array<std::byte, kSize> out;
  put_be<8>(&out[0], tid.value);
  put_be<8>(&out[8], length);
  out[kStatusOffset] = static_cast<std::byte>(status);
  put_be<2>(&out[17], user_size);
  put_be<2>(&out[19], description_size);
  put_be<2>(&out[21], extension_size);
  return out;
}

RecordHeader RecordHeader::parse(const std::byte* at) {
  RecordHeader header;
  header.oid = Oid{get_be<8>(at)};
  header.tid = Tid{get_be<8>(at + 8)};
  header.previous = get_be<8>(at + 16);
  header.transaction = get_be<8>(at + 24);
  header.version_size = static_cast<std::uint16_t>(get_be<2>(at + 32));
  header.data_size = get_be<8>(at + 34);
  return header;
}

std::array<std::byte, RecordHeader::kSize> RecordHeader::encode() const {
  std::array<std::byte, kSize> out;
  put_be<8>(&out[0], oid.value);
  put_be<8>(&out[8], tid.value);
  put_be<8>(&out[16], previous);
  put_be<8>(&out[24], transaction);
  put_be<2>(&out[32], version_size);
  put_be<8>(&out[34], data_size);
  return out;
}

}  // namespace zbig::fs
