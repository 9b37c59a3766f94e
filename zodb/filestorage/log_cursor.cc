// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/filestorage/log_cursor.h"

#include "zodb/error.h"

namespace zbig::fs {

std::optional<TransactionPlace> LogWalker::at(std::uint64_t position) {
  const auto left = committed_.end - position;
  if (left == 0) return std::nullopt;
  if (left < TransactionHeader::kSize + 8) {
    file_.corrupt(position, "the transaction here runs into the last one");
  }
  const auto header =
      TransactionHeader::parse(window_.exactly(position, TransactionHeader::kSize).data());
  if (header.length > left - 8 || header.length < header.full_size()) {
    file_.corrupt(position, "the transaction's length, " + std::to_string(header.length) +
                                ", makes no sense");
  }
  return TransactionPlace{header, position};
}

std::optional<TransactionPlace> LogWalker::before(std::uint64_t position) {
  if (position == kMagicSize) return std::nullopt;
  const auto room = position - kMagicSize;
  const auto length = room < 8 ? 0 : get_be<8>(window_.exactly(position - 8, 8).data());
  if (length < TransactionHeader::kSize || length > room - 8) {
    file_.corrupt(position - 8, "the length of the transaction that ends here makes no sense");
  }
  const auto place = at(position - 8 - length);
  if (!place || place->header.length != length) {
    file_.corrupt(position - 8, "the transaction's length at its end is not that at its start");
  }
  return place;
}

std::uint64_t LogWalker::find(Tid first) {
  if (first > committed_.last_tid) return committed_.end;
  const auto oldest = at(kMagicSize);
  if (!oldest || first <= oldest->header.tid) return kMagicSize;

  // Tids are times, so their distances tell which end is likely to be nearer.
  if (first.value - oldest->header.tid.value < committed_.last_tid.value - first.value) {
    auto place = oldest;
    while (place && place->header.tid < first) place = at(place->end());
    return place ? place->position : committed_.end;
  }
  auto position = committed_.end;
  for (auto place = before(position); place && place->header.tid >= first;
       place = before(position)) {
    position = place->position;
  }
  return position;
}

TransactionMeta LogWalker::meta(const TransactionPlace& place) {
  const auto& header = place.header;
  const auto size = static_cast<std::size_t>(header.full_size() - TransactionHeader::kSize);
  const auto bytes = window_.exactly(place.position + TransactionHeader::kSize, size);
  const auto text = as_text(bytes);
  const auto extension = bytes.last(header.extension_size);
  return {std::string(text.substr(0, header.user_size)),
          std::string(text.substr(header.user_size, header.description_size)),
          Bytes(extension.begin(), extension.end())};
}

std::vector<RevisionHeader> LogWalker::records(const TransactionPlace& place) {
  std::vector<RevisionHeader> out;
  const auto end = place.position + place.header.length;
  const RevisionReader reader(file_, {end, committed_.last_tid});
  auto at = place.position + place.header.full_size();
  while (at < end) {
    const auto bytes = window_.some(at, RevisionReader::kNeeded);
    if (bytes.size() < RecordHeader::kSize) file_.corrupt(at, "the file ends inside a record");
    const auto oid = Oid{get_be<8>(bytes.data())};
    out.push_back(reader.parse(at, oid, bytes));
    if (out.back().header.transaction != place.position ||
        out.back().header.tid != place.header.tid) {
      file_.corrupt(at,
                    "the record of object " + oid.brief() + " is not of the transaction around it");
    }
    at += out.back().header.full_size();
  }
  return out;
}

LogCursor::LogCursor(std::shared_ptr<const DataFile> file, Committed committed, Tid first, Tid last,
                     bool backwards)
    : file_(std::move(file)),
      walker_(*file_, committed),
      revisions_(*file_, committed),
      first_(first),
      last_(last),
      backwards_(backwards) {
  if (first > last) {
    position_ = backwards ? kMagicSize : committed.end;
  } else {
    const auto from =
        backwards ? Tid{last.value == ~std::uint64_t{0} ? last.value : last.value + 1} : first;
    position_ = walker_.find(from);
  }
}

std::optional<TransactionInfo> LogCursor::next() {
  for (;;) {
    const auto place = backwards_ ? walker_.before(position_) : walker_.at(position_);
    if (!place) return std::nullopt;
    if (place->header.tid < first_ || place->header.tid > last_) return std::nullopt;
    position_ = backwards_ ? place->position : place->end();
    if (place->header.status != TransactionHeader::kUndone) return info(*place);
  }
}

TransactionInfo LogCursor::info(const TransactionPlace& place) {
  auto meta = walker_.meta(place);
  TransactionInfo info;
  info.tid = place.header.tid;
  info.status = place.header.status;
  info.user = std::move(meta.user);
  info.description = std::move(meta.description);
  info.extension = std::move(meta.extension);
  for (const auto& record : walker_.records(place)) {
    const auto data = revisions_.data(record);
    info.stored.push_back({record.header.oid, data ? data->size : 0});
  }
  return info;
}

}  // namespace zbig::fs
