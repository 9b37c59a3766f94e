// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <span>

#include "bigfile/objects.h"

// Bytes of blocks, from their ZBlks.
//
// All blocks of one call go to the storage together: one batch for each level of indirection
// (ZBlks, then chunk tables, then ZData), and one for the payloads, which land in the caller's
// buffers.
//
// Of a ZBlk1 a read brings only the chunks that it touches. Each ZData, 4 KiB of payload behind
// some 46 bytes of pickle, is read without being located first, the pickle and the wanted part of
// the payload at once, by guessing that it is laid out as the last one was. The guess is checked
// against what was read. Nothing of it is kept: to read a chunk for the first time costs as much as
// for the tenth, however many chunks there are. Only chunks for which the guess is wrong (small
// ones, compressed ones) are looked at first, and their places remembered.

namespace zbig {

// Bytes [offset, offset + out.size()) of a block.
struct BlockPart {
  std::uint64_t block = 0;  // its number, for messages
  Ref zblk;
  std::uint64_t offset = 0;
  std::span<std::byte> out;
};

// Fills every part; what no payload covers is zero. Throws Corrupt, which names block and object.
void read_blocks(const Objects& objects, std::uint64_t blksize, std::span<const BlockPart> parts);

}  // namespace zbig
