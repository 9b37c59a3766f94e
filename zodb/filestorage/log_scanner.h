// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "zodb/filestorage/data_file.h"
#include "zodb/filestorage/format.h"
#include "zodb/filestorage/index.h"

// LogScanner: walks the transactions of Data.fs in the order of the file, from any transaction's
// start to the last whole one.
//
// What is at the end may be a commit in progress, what a crash left of one, or damage, and a scan
// has to tell them apart (rows of the table "The tail" of docs/formats/filestorage.md): a tail
// hides what comes after, so a reader stops in front of it and a writer cuts it off; damage inside
// the log is Corrupt. ZODB's scan (read_index) decides by the same rows. We refuse four more
// things that it only logs, because each of them makes it serve another revision than the committed
// one: a record whose `previous` is not what the index says, a record of another tid than its
// transaction, a tid that does not grow, and a status byte that no ZODB ever wrote.
//
// A live file. The writer may be writing the very bytes we read. It sets the status byte to
// committed as its last step, so when the byte says so, everything else is in its place; but a
// window read before may hold older bytes. So a header near the end of the file that says committed
// is read once more, alone, and what seems damaged is read a second time before it is called so.

namespace zbig::fs {

enum class Tail {
  kNone,         // the file ends with a whole transaction (row 1)
  kShortHeader,  // 1 to 22 bytes (row 2)
  kCheckpoint,   // a transaction that is voted or being written (row 3)
  kIncomplete,   // a transaction longer than the file (row 3)
  kNoise,        // no transaction, and the file does not end with one (rows 4 and 5): zeros, say
};

struct ScannedRecord {
  Oid oid;
  std::uint64_t position = 0;
};

struct ScannedTransaction {
  TransactionHeader header;
  std::uint64_t position = 0;
  std::vector<ScannedRecord> records;  // in the order of the file

  std::uint64_t end() const { return position + header.length + 8; }
};

class LogScanner {
 public:
  // Starts at `position`, the end of transaction `last_tid` or of the magic.
  LogScanner(const DataFile& file, std::uint64_t position, Tid last_tid);

  // The next whole transaction, valid until the next call; null at the tail. `index` is as of the
  // transaction before: the caller adds each one's records before the next call. After an
  // exception the scanner still stands before the damaged transaction.
  const ScannedTransaction* next(const Index& index);

  std::uint64_t position() const { return position_; }
  Tid last_tid() const { return last_tid_; }
  Tail tail() const { return tail_; }

 private:
  bool scan(const Index& index);
  bool at_tail(const TransactionHeader& header);
  void scan_records(const Index& index);

  const DataFile& file_;
  Window window_;
  std::uint64_t size_;
  // Whatever begins before this was followed by another whole transaction already.
  std::uint64_t settled_;
  std::uint64_t position_;
  Tid last_tid_;
  Tail tail_ = Tail::kNone;
  ScannedTransaction found_;
};

// Whether the bytes before `end` are the end of a whole transaction that begins at or after
// `begin`; its start. A tail of a crash does not look so; damage in front of good transactions
// does.
std::optional<std::uint64_t> transaction_before(const DataFile& file, std::uint64_t begin,
                                                std::uint64_t end);

}  // namespace zbig::fs
