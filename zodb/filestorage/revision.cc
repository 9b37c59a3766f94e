// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/filestorage/revision.h"

#include "zodb/error.h"

namespace zbig::fs {

RevisionHeader RevisionReader::at(std::uint64_t position, Oid oid) const {
  std::byte bytes[kNeeded];
  return parse(position, oid, ByteView(bytes, file_.read_some(position, bytes)));
}

RevisionHeader RevisionReader::parse(std::uint64_t position, Oid oid, ByteView bytes) const {
  const auto where = [&](const char* what) {
    file_.corrupt(position, "the record of object " + oid.brief() + ": " + what);
  };
  if (bytes.size() < RecordHeader::kSize) where("the file ends before it");
  const auto header = RecordHeader::parse(bytes.data());
  if (header.oid != oid) where("what is here is no record of it");
  if (position >= committed_.end || header.full_size() < header.data_size ||
      header.full_size() > committed_.end - position) {
    where("it runs past the last transaction");
  }
  if (header.transaction < kMagicSize || header.transaction > position ||
      position - header.transaction < TransactionHeader::kSize) {
    where("its transaction's position makes no sense");
  }
  if (header.tid > committed_.last_tid) where("its tid is later than the last transaction");
  if (header.previous >= position) where("the one before it is not before it");
  if (header.version_size != 0)
    throw Unsupported(file_.path() + " at " + std::to_string(position) +
                      ": a record in a version (ZODB 3.8 and older)");
  RevisionHeader revision{header, position, 0};
  if (header.data_size == 0) {
    if (bytes.size() < RecordHeader::kSize + RecordHeader::kBackSize) {
      where("the file ends before its back-pointer");
    }
    revision.back = get_be<8>(bytes.data() + RecordHeader::kSize);
    if (revision.back >= position) where("its back-pointer does not lead back");
  }
  return revision;
}

std::optional<RevisionHeader> RevisionReader::before(const RevisionHeader& revision) const {
  if (revision.header.previous == 0) return std::nullopt;
  auto older = at(revision.header.previous, revision.header.oid);
  if (older.header.tid >= revision.header.tid) {
    file_.corrupt(older.position, "the record of object " + older.header.oid.brief() +
                                      " is not older than the one after it");
  }
  return older;
}

std::optional<RevisionHeader> RevisionReader::as_of(RevisionHeader revision, Tid at) const {
  while (revision.header.tid > at) {
    const auto older = before(revision);
    if (!older) {
      if (!packed(revision)) return std::nullopt;
      throw NotFound("object " + revision.header.oid.brief() + " as of tid " + at.hex() + " in " +
                     file_.path() + ": what there was before tid " + revision.header.tid.hex() +
                     " is packed away");
    }
    revision = *older;
  }
  return revision;
}

std::optional<DataPlace> RevisionReader::data(const RevisionHeader& revision) const {
  auto holder = revision;
  while (holder.header.data_size == 0) {
    if (holder.back == 0) return std::nullopt;
    holder = at(holder.back, holder.header.oid);
  }
  return DataPlace{holder.position + RecordHeader::kSize, holder.header.data_size};
}

bool RevisionReader::packed(const RevisionHeader& revision) const {
  std::byte bytes[TransactionHeader::kSize];
  file_.read(revision.header.transaction, bytes);
  const auto header = TransactionHeader::parse(bytes);
  if (header.tid != revision.header.tid) {
    file_.corrupt(
        revision.header.transaction,
        "this is not transaction " + revision.header.tid.hex() + ", as a record of it says");
  }
  return header.status == TransactionHeader::kPacked;
}

}  // namespace zbig::fs
