// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>

#include "zodb/filestorage/data_file.h"
#include "zodb/filestorage/format.h"

// Revisions of one object: from a record's position to the record before it, and from a record
// without data to the one that holds them.
//
// A position comes from the index or from another record, and either may be damaged, so every
// header is verified where it is read: it is of this object, within the committed part of the
// file, after its transaction's header, of a tid that exists; `previous` and back-pointers lead
// strictly towards the start of the file, and tids along `previous` strictly down. A walk therefore
// ends, whatever the bytes.

namespace zbig::fs {

// What of a file is committed, as far as its reader knows.
struct Committed {
  std::uint64_t end = 0;
  Tid last_tid;
};

struct RevisionHeader {
  RecordHeader header;
  std::uint64_t position = 0;
  std::uint64_t back = 0;  // the back-pointer, where header.data_size is 0
};

// Where the data of a revision are.
struct DataPlace {
  std::uint64_t position = 0;
  std::uint64_t size = 0;
};

class RevisionReader {
 public:
  static constexpr std::size_t kNeeded = RecordHeader::kSize + RecordHeader::kBackSize;

  RevisionReader(const DataFile& file, Committed committed) : file_(file), committed_(committed) {}

  // The record at `position`, verified.
  RevisionHeader at(std::uint64_t position, Oid oid) const;
  // The same from bytes that the caller read there, kNeeded of them or as many as the file has.
  RevisionHeader parse(std::uint64_t position, Oid oid, ByteView bytes) const;

  // The revision before; nothing for the first one.
  std::optional<RevisionHeader> before(const RevisionHeader& revision) const;
  // The newest revision with serial <= `at`, `revision` or one before it. Nothing: the object was
  // not there yet. Throws NotFound where a pack removed what was there.
  std::optional<RevisionHeader> as_of(RevisionHeader revision, Tid at) const;
  // Nothing: the object is deleted, or its creation undone.
  std::optional<DataPlace> data(const RevisionHeader& revision) const;

 private:
  bool packed(const RevisionHeader& revision) const;

  const DataFile& file_;
  Committed committed_;
};

}  // namespace zbig::fs
