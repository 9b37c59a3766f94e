// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>

#include "zodb/bytes.h"
#include "zodb/class_name.h"

// Where the bytes of a block are in its record.
//
// The state of a ZBlk0 (and of the ZData of a ZBlk1) is one byte string, and all of the record but
// some 40 bytes. A read of 4 KiB from a block of 2 MiB must not bring the rest: the first bytes of
// the record say where the string starts and how long it is, and then the storage is asked for just
// the part wanted. This is the one piece of pickle that runs a million times a second, so it knows
// the few forms in which records of these classes are written (any Python, any protocol), and
// leaves all others to the pickle reader.

namespace zbig {

struct PayloadHead {
  ClassId cls;               // kZBlk0 or kZData
  std::uint64_t offset = 0;  // of the first byte of payload, in the record
  std::uint64_t length = 0;
};

// As many bytes as payload_head ever needs.
inline constexpr std::size_t kPayloadHeadSize = 128;

// `head`: the first bytes of the record, kPayloadHeadSize or all of it if it is shorter;
// `record_size`: of the whole record. Nothing: this needs the whole record (another class, a record
// compressed by zc.zlibstorage, an unusual pickle, a damaged one). What is given lies in the
// record.
std::optional<PayloadHead> payload_head(ByteView head, std::uint64_t record_size);

// The same from a whole record (as parse_record wants it: not compressed), in any form that the
// pickle reader reads. Nothing if the class is another one. Throws Corrupt.
std::optional<PayloadHead> find_payload(ByteView record);

}  // namespace zbig
