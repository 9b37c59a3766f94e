// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/feed.h"

#include <algorithm>

namespace zbig::zeo {

void Feed::begin(Tid head) {
  {
    const std::lock_guard lock(mutex_);
    log_begin_ = head;
  }
  head_.store(head.value, std::memory_order_release);
}

void Feed::log(Tid after, Tid tid, std::span<const Oid> oids) {
  const std::lock_guard lock(mutex_);
  log_.push_back({after, tid, {oids.begin(), oids.end()}});
  logged_oids_ += oids.size();
  while (logged_oids_ > kMostOids) {
    log_begin_ = log_.front().upto;
    logged_oids_ -= log_.front().oids.size();
    log_.pop_front();
  }
}

void Feed::publish(Tid tid, std::span<const Oid> oids) {
  subscribers_.notify(tid, oids);
  head_.store(tid.value, std::memory_order_release);
}

void Feed::commit(Tid tid, std::span<const Oid> oids) {
  cache_.invalidate(tid, oids);
  if (tid <= head()) {  // told again, or late, which no server is known to do
    log(Tid{tid.value - 1}, tid, oids);
    return;
  }
  log(head(), tid, oids);
  publish(tid, oids);
}

void Feed::catch_up(Tid tid, std::optional<std::span<const Oid>> oids) {
  if (tid <= head()) return;
  if (oids) {
    cache_.forget_newest(*oids);
    log(head(), tid, *oids);
    publish(tid, *oids);
    return;
  }
  cache_.forget_newest();
  {
    const std::lock_guard lock(mutex_);
    log_.clear();
    logged_oids_ = 0;
    log_begin_ = tid;
  }
  publish(tid, {});
}

std::optional<std::vector<Oid>> Feed::changed(Tid after, Tid upto) const {
  std::vector<Oid> oids;
  {
    const std::lock_guard lock(mutex_);
    if (after < log_begin_ || upto > head()) return std::nullopt;
    for (const Entry& entry : log_) {
      if (entry.upto > after && entry.after < upto) {
        oids.insert(oids.end(), entry.oids.begin(), entry.oids.end());
      }
    }
  }
  std::sort(oids.begin(), oids.end());
  oids.erase(std::unique(oids.begin(), oids.end()), oids.end());
  return oids;
}

}  // namespace zbig::zeo
