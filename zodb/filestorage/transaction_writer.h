// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "zodb/filestorage/data_file.h"
#include "zodb/filestorage/format.h"
#include "zodb/filestorage/log_scanner.h"
#include "zodb/storage.h"

// Appends one transaction to Data.fs.
//
// Problem. ZODB collects a transaction in Data.fs.tmp and copies it at vote, so every byte is
// written twice, and it syncs once, after the transaction says that it is committed; a loss of
// power then may leave one that says so and lacks its data. Here records go straight to the end of
// Data.fs, behind a header whose status is 'c': every reader, ours and ZODB's, stops in front of
// it, and the next writer cuts it off. Memory is one buffer, whatever the transaction's size.
//
//   add      header ('c') and records, in large writes; a large payload is written from where it
//            is. The disk works meanwhile: what is left to vote's sync is little
//   vote     the length behind and, unless it was still in the buffer, in front; fdatasync
//   finish   one byte: 'c' becomes ' '; fdatasync
//
// W1  The status byte says ' ' only after everything else of the transaction is on the disk.
// W2  Until finish() began, abort() leaves the file as it was before.
//
// For one thread, and one writer at a time on a file.

namespace zbig::fs {

class TransactionWriter {
 public:
  // Writes nothing yet. `position` is the end of the file.
  TransactionWriter(DataFile& file, std::uint64_t position, Tid tid, const TransactionMeta& meta);

  // Appends a record; `previous` is the committed record of the oid, 0 if there is none. The parts
  // are not empty altogether: a record without data means another thing.
  void add(Oid oid, std::uint64_t previous, std::span<const ByteView> parts);
  void vote();
  void finish();
  // Cuts off what was written. Reports no error: the next transaction looks at the file's size.
  void abort() noexcept;

  // What was written, as a scan would find it. Complete after vote().
  const ScannedTransaction& transaction() const { return transaction_; }

 private:
  void flush(std::span<const ByteView> parts);
  void put(ByteView bytes) { append(buffer_, bytes); }

  static constexpr std::size_t kBufferSize = 1 << 20;
  // A record at least this large is written from the caller's memory.
  static constexpr std::uint64_t kLarge = 64 << 10;
  // How much is left to the page cache before the disk is told to begin.
  static constexpr std::uint64_t kWriteBack = 8 << 20;

  DataFile& file_;
  ScannedTransaction transaction_;
  Bytes buffer_;                // what is not in the file yet
  std::uint64_t written_;       // where the buffer belongs in the file
  std::uint64_t writing_back_;  // up to where the disk has been told to begin
};

}  // namespace zbig::fs
