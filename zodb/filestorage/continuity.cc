// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/filestorage/continuity.h"

#include "zodb/error.h"
#include "zodb/filestorage/log_cursor.h"

namespace zbig::fs {

namespace {

// Whether the object's revision of transaction `tid` is there, or nothing at all of that time.
bool kept(const Log& log, Oid oid, Tid tid) {
  const auto position = log.index.find(oid);
  if (!position) return true;
  try {
    const RevisionReader reader(*log.file, log.committed);
    const auto revision = reader.as_of(reader.at(*position, oid), tid);
    return !revision || revision->header.tid == tid;
  } catch (const NotFound&) {
    return true;  // packed away, and a later revision stands in its place
  }
}

// Whether what `after` begins with is in `before`.
bool begins_in(const Log& before, const Log& after) {
  LogWalker walker(*after.file, after.committed);
  const RevisionReader reader(*before.file, before.committed);
  for (auto place = walker.at(kMagicSize); place; place = walker.at(place->end())) {
    if (place->header.tid > before.committed.last_tid) return false;
    if (place->header.status == TransactionHeader::kUndone) continue;
    for (const auto& record : walker.records(*place)) {
      const auto position = before.index.find(record.header.oid);
      if (!position) return false;
      const auto revision =
          reader.as_of(reader.at(*position, record.header.oid), place->header.tid);
      return revision && revision->header.tid == place->header.tid;
    }
  }
  return false;
}

}  // namespace

std::optional<Tid> first_break(const Log& before, const Log& after) {
  if (before.last_transaction != 0 && !begins_in(before, after)) return before.committed.last_tid;
  LogWalker walker(*before.file, before.committed);
  auto position = before.committed.end;
  for (bool last = true;; last = false) {
    const auto place = walker.before(position);
    if (!place || (!last && place->header.tid <= after.committed.last_tid)) return std::nullopt;
    if (place->header.status != TransactionHeader::kUndone) {
      for (const auto& record : walker.records(*place)) {
        if (!kept(after, record.header.oid, place->header.tid)) return place->header.tid;
      }
    }
    position = place->position;
  }
}

}  // namespace zbig::fs
