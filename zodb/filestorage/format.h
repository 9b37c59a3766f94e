// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "zodb/bytes.h"
#include "zodb/ids.h"

// The bytes of Data.fs (docs/formats/filestorage.md; ZODB/FileStorage/format.py is the original).
//
//   Data.fs      = magic transaction*
//   transaction  = header user description extension record* length-again
//   record       = header (data | back-pointer)
//
// Numbers are big-endian, positions are offsets from the start of the file. These types only take
// apart and put together; whether a field makes sense in its place is asked by who reads the file.

namespace zbig::fs {

inline constexpr std::uint64_t kMagicSize = 4;
inline constexpr std::string_view kMagicPython3 = "FS30";
inline constexpr std::string_view kMagicPython2 = "FS21";

// Data.fs.index keeps positions in 48 bits.
inline constexpr std::uint64_t kMaxFileSize = (std::uint64_t{1} << 48) - 1;

struct TransactionHeader {
  static constexpr std::uint64_t kSize = 23;
  static constexpr std::uint64_t kStatusOffset = 16;
  static constexpr std::uint64_t kMaxText = 65535;

  static constexpr char kCommitted = ' ';
  static constexpr char kPacked = 'p';
  static constexpr char kCheckpoint = 'c';  // voted or being written: not there yet
  static constexpr char kUndone = 'u';      // an undo of long ago: skipped, but its tid counts

  Tid tid;
  std::uint64_t length = 0;  // of the whole transaction without the 8 bytes of length-again
  char status = kCommitted;
  std::uint16_t user_size = 0;
  std::uint16_t description_size = 0;
  std::uint16_t extension_size = 0;

  // Where the records begin, from the start of the transaction.
  std::uint64_t full_size() const { return kSize + user_size + description_size + extension_size; }
  bool known_status() const {
    return status == kCommitted || status == kPacked || status == kCheckpoint || status == kUndone;
  }

  static TransactionHeader parse(const std::byte* at);  // kSize bytes
  std::array<std::byte, kSize> encode() const;

  bool operator==(const TransactionHeader&) const = default;
};

struct RecordHeader {
  static constexpr std::uint64_t kSize = 42;
  static constexpr std::uint64_t kBackSize = 8;

  Oid oid;
  Tid tid;
  std::uint64_t previous = 0;      // the record that was current for the oid before; 0: none
  std::uint64_t transaction = 0;   // where the enclosing transaction begins
  std::uint16_t version_size = 0;  // of ZODB 3.8 and older; 0 ever since
  std::uint64_t data_size = 0;     // 0: a back-pointer follows in place of data

  std::uint64_t full_size() const { return kSize + (data_size != 0 ? data_size : kBackSize); }

  static RecordHeader parse(const std::byte* at);  // kSize bytes
  std::array<std::byte, kSize> encode() const;

  bool operator==(const RecordHeader&) const = default;
};

}  // namespace zbig::fs
