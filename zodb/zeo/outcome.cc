// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/outcome.h"

#include <algorithm>
#include <unordered_set>

#include <zlib.h>

#include "zodb/zeo/history.h"
#include "zodb/zeo/server_error.h"

namespace zbig::zeo {

void Outcome::add_record(Oid oid, std::span<const ByteView> parts) {
  Record record;
  uLong checksum = ::crc32_z(0, nullptr, 0);
  for (const ByteView part : parts) {
    record.size += part.size();
    checksum = ::crc32_z(checksum, reinterpret_cast<const Bytef*>(part.data()), part.size());
  }
  record.checksum = static_cast<std::uint32_t>(checksum);
  records_[oid] = record;
  bytes_ += record.size;
}

void Outcome::add_resolved(Oid oid) {
  const auto found = records_.find(oid);
  if (found != records_.end()) found->second.resolved = true;
}

std::vector<Oid> Outcome::oids() const {
  std::vector<Oid> oids;
  oids.reserve(records_.size());
  for (const auto& [oid, record] : records_) oids.push_back(oid);
  return oids;
}

// The old connection holds the storage's lock from the vote on until the server has finished the
// transaction, or aborted it because the connection ended. A vote over the new one waits for that.
void Outcome::wait_until_decided(Link& link) const {
  const Arg begin[] = {Arg(std::int64_t{0}), Arg(ByteView()), Arg(ByteView()), Arg::empty_map()};
  const Arg transaction[] = {Arg(std::int64_t{0})};
  const auto patience = link.patience();
  while (true) {
    const auto channel = link.ready(patience);
    channel->tell("tpc_begin", begin);
    auto answer = channel->call("vote", transaction);
    const Reply reply = link.await_long(*channel, answer, bytes_, "vote");
    if (!reply) continue;
    channel->tell("tpc_abort", transaction);
    if (reply->is_exception()) throw_server_error(*reply, link.name() + ": vote");
    return;
  }
}

std::optional<Tid> Outcome::find(Link& link) const {
  wait_until_decided(link);
  TransactionWalk walk(link, Tid{head_.value + 1}, kMaxTid);
  while (const auto info = walk.next()) {
    if (info->user != meta_.user || info->description != meta_.description) continue;
    std::unordered_set<Oid> same;
    bool other = false;
    walk.records([&](Oid oid, std::optional<ByteView> data) {
      const auto ours = records_.find(oid);
      if (ours == records_.end() || !data) {
        other = true;
        return;
      }
      const auto checksum = static_cast<std::uint32_t>(
          ::crc32_z(0, reinterpret_cast<const Bytef*>(data->data()), data->size()));
      if (ours->second.resolved ||
          (ours->second.size == data->size() && ours->second.checksum == checksum)) {
        same.insert(oid);
      } else {
        other = true;
      }
    });
    if (!other && same.size() == records_.size()) return info->tid;
  }
  return std::nullopt;
}

}  // namespace zbig::zeo
