// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>

#include "zodb/storage.h"

// FileStorage: a ZODB database in one append-only file, Data.fs (docs/formats/filestorage.md).
//
// Both magics are read and written: FS30 (Python 3) and FS21 (Python 2); a database that kCreate
// makes is FS30. One process writes at a time (flock on Data.fs.lock, as ZODB); any number follow
// the file's tail: `sync()` brings what was committed since, and notices when a pack has put
// another file in its place. There is no thread in here: whoever owns the storage calls `sync()`.
//
// Opening for writing first cuts off what a crash left at the end of the file, after a copy to
// Data.fs.trN, as ZODB does. Opening for reading changes nothing on the disk.

namespace zbig {

// Opens the database in the file `path`. Throws NotFound (no such file, and not kCreate), Busy
// (another process writes; names its pid), Corrupt (names file and offset), Unsupported, ReadOnly,
// Failed.
std::unique_ptr<Storage> open_filestorage(const std::string& path, OpenMode mode);

}  // namespace zbig
