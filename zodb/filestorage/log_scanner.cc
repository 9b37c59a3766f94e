// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/filestorage/log_scanner.h"

#include "zodb/error.h"

namespace zbig::fs {

LogScanner::LogScanner(const DataFile& file, std::uint64_t position, Tid last_tid)
    : file_(file),
      window_(file),
      size_(file.size()),
      settled_(transaction_before(file, position, size_).value_or(position)),
      position_(position),
      last_tid_(last_tid) {}

const ScannedTransaction* LogScanner::next(const Index& index) {
  bool found = false;
  try {
    found = scan(index);
  } catch (const Corrupt&) {
    window_.forget();
    size_ = file_.size();
    found = scan(index);
  }
  if (!found) return nullptr;
  position_ = found_.end();
  last_tid_ = found_.header.tid;
  return &found_;
}

bool LogScanner::scan(const Index& index) {
  const auto left = size_ - std::min(size_, position_);
  if (left < TransactionHeader::kSize) {
    tail_ = left == 0 ? Tail::kNone : Tail::kShortHeader;
    return false;
  }
  auto header =
      TransactionHeader::parse(window_.exactly(position_, TransactionHeader::kSize).data());
  if (header.status != TransactionHeader::kCheckpoint && position_ >= settled_) {
    std::byte again[TransactionHeader::kSize];
    file_.read(position_, again);
    header = TransactionHeader::parse(again);
  }
  if (at_tail(header)) return false;

  if (!header.known_status()) {
    file_.corrupt(position_, "unknown transaction status " +
                                 std::to_string(static_cast<unsigned char>(header.status)));
  }
  if (header.tid <= last_tid_) {
    file_.corrupt(position_, "transaction " + header.tid.hex() + " is not later than " +
                                 last_tid_.hex() + " before it (fsrecover repairs this)");
  }
  found_.header = header;
  found_.position = position_;
  found_.records.clear();
  if (header.status != TransactionHeader::kUndone) scan_records(index);

  const auto again = get_be<8>(window_.exactly(position_ + header.length, 8).data());
  if (again != header.length) {
    file_.corrupt(position_ + header.length,
                  "the transaction's length at its end, " + std::to_string(again) +
                      ", is not that at its start, " + std::to_string(header.length));
  }
  return true;
}

bool LogScanner::at_tail(const TransactionHeader& header) {
  const auto left = size_ - position_;
  if (header.status == TransactionHeader::kCheckpoint) {
    tail_ = Tail::kCheckpoint;
    return true;
  }
  if (left < 8 || header.length > left - 8) {
    tail_ = Tail::kIncomplete;
    return true;
  }
  if (header.length >= header.full_size()) return false;

  std::byte last[8];
  file_.read(size_ - 8, last);
  const auto length = get_be<8>(last);
  const bool no_end = length > left || length < TransactionHeader::kSize;
  const bool never_there = header.status == '\0' && !transaction_before(file_, position_, size_);
  if (no_end || never_there) {
    tail_ = Tail::kNoise;
    return true;
  }
  file_.corrupt(position_, "the transaction's length, " + std::to_string(header.length) +
                               ", is less than its header's");
}

void LogScanner::scan_records(const Index& index) {
  const auto& header = found_.header;
  const auto end = position_ + header.length;
  auto at = position_ + header.full_size();
  while (at < end) {
    if (end - at < RecordHeader::kSize) {
      file_.corrupt(at, "a record's header runs past the transaction");
    }
    const auto record = RecordHeader::parse(window_.exactly(at, RecordHeader::kSize).data());
    if (record.version_size != 0) {
      throw Unsupported(file_.path() + " at " + std::to_string(at) +
                        ": a record in a version (ZODB 3.8 and older); open and pack the "
                        "database with a ZODB of that time first");
    }
    const auto room = end - at - RecordHeader::kSize;
    if (record.data_size > room || (record.data_size == 0 && room < RecordHeader::kBackSize)) {
      file_.corrupt(at,
                    "the record of object " + record.oid.brief() + " runs past the transaction");
    }
    if (record.transaction != position_ || record.tid != header.tid) {
      file_.corrupt(at, "the record of object " + record.oid.brief() +
                            " is not of the transaction around it");
    }
    // A pack writes 0 for the revisions that it kept, whatever it kept before them.
    const auto before = index.find(record.oid).value_or(0);
    const bool packed = header.status == TransactionHeader::kPacked && record.previous == 0;
    if (record.previous != before && !packed) {
      file_.corrupt(at, "the record of object " + record.oid.brief() +
                            " names as the one before it that at " +
                            std::to_string(record.previous) + ", the newest is at " +
                            std::to_string(before));
    }
    found_.records.push_back({record.oid, at});
    at += record.full_size();
  }
  if (at != end) file_.corrupt(at, "the records do not fill the transaction");
}

std::optional<std::uint64_t> transaction_before(const DataFile& file, std::uint64_t begin,
                                                std::uint64_t end) {
  if (end < begin + TransactionHeader::kSize + 8) return std::nullopt;
  std::byte bytes[TransactionHeader::kSize];
  if (file.read_some(end - 8, std::span(bytes, 8)) != 8) return std::nullopt;
  const auto length = get_be<8>(bytes);
  if (length < TransactionHeader::kSize || length > end - begin - 8) return std::nullopt;
  const auto start = end - 8 - length;
  if (file.read_some(start, bytes) != sizeof bytes) return std::nullopt;
  const auto header = TransactionHeader::parse(bytes);
  if (header.length != length || header.length < header.full_size()) return std::nullopt;
  if (!header.known_status()) return std::nullopt;
  return start;
}

}  // namespace zbig::fs
