// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "bigfile/commit.h"
#include "zodb/storage.h"

// The bytes of a file into a volume, as one transaction.
//
// Where both the file and the volume have a hole, nothing is dirty: a sparse file of terabytes
// imports as fast as its data. A bare ZBigFile grows as far as the file reaches; an array has the
// size of its shape.

namespace zbig {

struct ImportRequest {
  std::string volume;
  std::uint64_t offset = 0;  // in the volume
  BlockFormat format = BlockFormat::kZBlk0;
  TransactionMeta meta;
};

// An open regular file or block device, which stays the caller's.
struct ImportFile {
  int fd = -1;
  std::string name;  // for messages
  std::uint64_t size = 0;
};

// Throws Invalid if it does not fit into the volume, Failed if the file becomes shorter meanwhile,
// and what find_volume and commit throw; then nothing was changed.
CommitResult import_file(Storage& storage, const ImportRequest& request, const ImportFile& file,
                         const ProgressFn& progress, const VotedFn& voted = {});

}  // namespace zbig
