// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "zodb/filestorage/data_file.h"
#include "zodb/filestorage/index.h"

// Data.fs.index on the disk: whether it belongs to the file beside it, and saving it.
//
// A process that was killed leaves an index of its last start, a copy of Data.fs may lie beside the
// index of another one, a restored backup beside a newer one. An old index of the same file is as
// good as new: what came after is scanned. Any other is ignored, and the file scanned from its
// start. Telling them apart costs a few reads, whatever the size: the last transaction that the
// index covers must end where the index says, and the records in it must be where the index has
// them (ZODB's own check); and a sample of entries over the whole index must lead to records of
// those objects.

namespace zbig::fs {

struct UsableIndex {
  std::shared_ptr<const IndexImage> image;
  Tid last_tid;                        // of the last transaction before image->covered()
  std::uint64_t last_transaction = 0;  // where it begins
};

inline std::string index_path(const std::string& data_path) { return data_path + ".index"; }

// The index beside `file`, if it is one of it.
std::optional<UsableIndex> load_index(const DataFile& file);

// Writes the index beside Data.fs: whoever opens it sees the old one or the new one, and after a
// loss of power as well. Throws NoSpace, Failed; the old one is then still there.
void save_index(const std::string& data_path, const IndexImage& image, std::uint64_t covered);

}  // namespace zbig::fs
