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

}  // namespace

std::optional<Tid> first_break(const Log& before, const Log& after) {
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
