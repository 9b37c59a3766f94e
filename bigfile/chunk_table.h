// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <vector>

#include "bigfile/objects.h"

// The chunk table of a ZBlk1: an IOBTree from byte offsets in the block to ZData.
//
// A reader assumes nothing of the size of chunks or of where they begin, only that none reaches
// into the next one or past the end of the block. What lies between them is zero.

namespace zbig {

struct Chunk {
  std::uint64_t offset = 0;  // in the block
  std::uint64_t limit =
      0;  // the chunk must end by here: where the next one begins, or the block ends
  Ref zdata;
};

// The chunks that bytes [from, to) of a block of `blksize` bytes may lie in, ascending: those that
// begin there, and the last one that begins before. With the whole block asked for, the whole
// table. Throws Corrupt for an offset outside the block.
std::vector<Chunk> chunks_in(const Objects& objects, Oid chunktab, std::uint64_t from,
                             std::uint64_t to, std::uint64_t blksize);

// Where what is stored of a block ends: beyond it the block is zero.
std::uint64_t stored_length(const Objects& objects, const BlockObject& zblk, std::uint64_t blksize);

// Throws Corrupt unless the chunk, whose payload is `length` bytes long, ends where it must.
void check_chunk(const Chunk& chunk, std::uint64_t length);

}  // namespace zbig
