// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/filestorage/recent_changes.h"

#include <algorithm>

namespace zbig::fs {

void RecentChanges::reset(Tid upto) {
  changes_.clear();
  known_after_ = upto;
}

void RecentChanges::add(Tid tid, std::span<const Oid> oids) {
  if (oids.size() > kMostOids) return reset(tid);
  changes_.push_back({tid, {oids.begin(), oids.end()}});
  if (changes_.size() <= kMost) return;
  known_after_ = changes_.front().tid;
  changes_.pop_front();
}

std::optional<std::vector<Oid>> RecentChanges::between(Tid after, Tid upto) const {
  if (after < known_after_) return std::nullopt;
  std::vector<Oid> oids;
  for (const Change& change : changes_) {
    if (change.tid <= after || change.tid > upto) continue;
    oids.insert(oids.end(), change.oids.begin(), change.oids.end());
  }
  std::sort(oids.begin(), oids.end());
  oids.erase(std::unique(oids.begin(), oids.end()), oids.end());
  return oids;
}

}  // namespace zbig::fs
