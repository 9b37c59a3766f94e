// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "bigfile/volume.h"

// Survey: counts what one state of a volume is made of (`zbig ls`, `zbig info`).
//
// Walks the whole block table, and the chunk table of every ZBlk1, but reads no payload: how long
// a record is and when it was stored is known from its header.

namespace zbig {

struct Survey {
  std::uint64_t blocks = 0;        // in the block table
  std::uint64_t zblk0 = 0;         // of them
  std::uint64_t zblk1 = 0;         // of them
  std::uint64_t chunks = 0;        // of all ZBlk1
  std::uint64_t stored_bytes = 0;  // of the records of blocks and chunks, as stored
  Tid tid;                         // the newest transaction that stored anything of the volume
};

// Called now and then with the number of blocks counted; may throw to stop.
using SurveyProgress = std::function<void(std::uint64_t blocks)>;

// Throws Corrupt where the way is broken (`zbig check` goes on there), Unavailable.
Survey survey(const Storage& storage, const Volume& volume, Tid at, const SurveyProgress& progress);

}  // namespace zbig
