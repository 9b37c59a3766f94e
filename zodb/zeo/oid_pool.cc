// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/oid_pool.h"

#include <algorithm>

#include "zodb/zeo/server_error.h"

namespace zbig::zeo {

Oid OidPool::next() {
  while (true) {
    {
      const std::lock_guard lock(mutex_);
      const auto channel = channel_.lock();
      if (!oids_.empty() && channel && !channel->ended()) {
        const Oid oid = oids_.front();
        oids_.pop_front();
        return oid;
      }
    }
    refill();
  }
}

bool OidPool::gave(const Channel& channel, Oid oid) const {
  const std::lock_guard lock(mutex_);
  if (channel_.lock().get() != &channel) return false;
  return std::any_of(given_.rbegin(), given_.rend(),
                     [&](const auto& run) { return run.first <= oid && oid <= run.second; });
}

void OidPool::refill() {
  const auto patience = link_.patience();
  const auto channel = link_.ready(patience);
  std::size_t calls = 1;
  {
    const std::lock_guard lock(mutex_);
    if (channel_.lock() == channel) calls = calls_ = std::min(2 * calls_, kMostCalls);
  }
  const Arg args[] = {Arg(std::int64_t{100})};
  std::vector<std::future<Reply>> answers;
  for (std::size_t i = 0; i < calls; ++i) answers.push_back(channel->call("new_oids", args));
  std::vector<Oid> oids;
  for (auto& answer : answers) {
    const Reply reply = link_.await(answer, patience, "new_oids");
    if (!reply) return;
    if (reply->is_exception()) throw_server_error(*reply, link_.name() + ": new objects");
    const auto list = sequence(reply->args());
    if (!list || list->empty()) throw Corrupt(link_.name() + ": new_oids gave no list");
    for (const Value item : *list) {
      const auto oid = id_of(item);
      if (!oid) throw Corrupt(link_.name() + ": new_oids gave what is no oid");
      oids.push_back(Oid{*oid});
    }
  }
  const std::lock_guard lock(mutex_);
  if (channel_.lock() != channel) {
    channel_ = channel;
    oids_.clear();
    given_.clear();
    calls_ = 1;
  }
  for (const Oid oid : oids) {
    oids_.push_back(oid);
    if (!given_.empty() && given_.back().second.value + 1 == oid.value) {
      given_.back().second = oid;
    } else {
      given_.emplace_back(oid, oid);
    }
  }
}

}  // namespace zbig::zeo
