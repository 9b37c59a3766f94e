// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "zodb/filestorage/data_file.h"
#include "zodb/filestorage/index.h"
#include "zodb/filestorage/log_scanner.h"
#include "zodb/filestorage/revision.h"

// Log: one Data.fs, opened and indexed up to its last whole transaction.

namespace zbig::fs {

struct Log {
  std::shared_ptr<DataFile> file;
  Index index;
  Committed committed;
  std::uint64_t last_transaction = 0;  // where it begins; 0: there is none
  Tail tail = Tail::kNone;             // what follows it
  bool index_used = false;             // Data.fs.index was good for something
  bool index_saved = false;            // Data.fs.index covers everything

  // Adds a transaction that follows the last one.
  void add(const ScannedTransaction& transaction);
};

// Opens the file for reading or (Access::kWrite) for writing and finds its objects: from
// Data.fs.index and what came after it, or by a scan of everything. Changes nothing.
Log open_log(const std::string& path, DataFile::Access access, std::uint64_t generation);

// Makes an empty database, durably. The file must not exist.
void create_log(const std::string& path);

// What a crash left after the last whole transaction, removed: rows 2 to 5 of the table "The tail".
// Bytes that may have been data are first copied to PATH.trN, N the first free number. Throws
// Corrupt, and removes nothing, if the tail ends with a whole transaction: then what is in front of
// it is no crash's leftover but damage, and later commits would be lost.
void cut_tail(Log& log);

}  // namespace zbig::fs
