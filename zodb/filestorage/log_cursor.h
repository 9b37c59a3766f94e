// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "zodb/filestorage/data_file.h"
#include "zodb/filestorage/format.h"
#include "zodb/filestorage/revision.h"
#include "zodb/storage.h"

// Walks the committed transactions of a Data.fs, in either direction, without the index: forwards
// by the length in front of each, backwards by the length behind it. Payloads are not read.

namespace zbig::fs {

struct TransactionPlace {
  TransactionHeader header;
  std::uint64_t position = 0;

  std::uint64_t end() const { return position + header.length + 8; }
};

// One step of a walk; every transaction is verified to lie within the committed part.
class LogWalker {
 public:
  LogWalker(const DataFile& file, Committed committed)
      : file_(file), window_(file), committed_(committed) {}

  // The transaction that begins at `position`; nothing at the end.
  std::optional<TransactionPlace> at(std::uint64_t position);
  // The transaction that ends at `position`; nothing at the start of the log.
  std::optional<TransactionPlace> before(std::uint64_t position);
  // Where the first transaction with tid >= `first` begins, or the end. Walks from the nearer end.
  std::uint64_t find(Tid first);

  TransactionMeta meta(const TransactionPlace& place);
  // In the order of the file.
  std::vector<RevisionHeader> records(const TransactionPlace& place);

 private:
  const DataFile& file_;
  Window window_;
  Committed committed_;
};

// Storage::transactions of one file, as of `committed`.
class LogCursor : public TransactionCursor {
 public:
  LogCursor(std::shared_ptr<const DataFile> file, Committed committed, Tid first, Tid last,
            bool backwards);
  std::optional<TransactionInfo> next() override;

 private:
  TransactionInfo info(const TransactionPlace& place);

  std::shared_ptr<const DataFile> file_;
  LogWalker walker_;
  RevisionReader revisions_;
  Tid first_;
  Tid last_;
  bool backwards_;
  std::uint64_t position_;
};

}  // namespace zbig::fs
