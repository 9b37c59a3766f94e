// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/outcome.h"

#include <deque>
#include <limits>

#include "zodb/error.h"
#include "zodb/zeo/history.h"
#include "zodb/zeo/server_error.h"

namespace zbig::zeo {
namespace {

// The revision of an object before a tid, without its bytes.
struct Found {
  Tid serial;               // kNoTid: there is none
  std::optional<Tid> next;  // the revision that follows it
};

constexpr std::size_t kMostAhead = 16;

// The connection that had the transaction holds the storage's lock from the vote on until the
// server has finished it, or aborted it because the connection ended. A vote waits for that.
void wait_until_decided(Link& link, std::uint64_t bytes) {
  const Arg begin[] = {Arg(std::int64_t{0}), Arg(ByteView()), Arg(ByteView()), Arg::empty_map()};
  const Arg transaction[] = {Arg(std::int64_t{0})};
  const auto patience = link.patience();
  while (true) {
    const auto channel = link.ready(patience);
    channel->tell("tpc_begin", begin);
    auto answer = channel->call("vote", transaction);
    const Reply reply = link.await_long(*channel, answer, bytes, "vote");
    if (!reply) {
      link.check_patience(patience);
      continue;
    }
    channel->tell("tpc_abort", transaction);
    if (reply->is_exception()) throw_server_error(*reply, link.name() + ": vote");
    return;
  }
}

Found found_in(const Link& link, const Message& reply) {
  if (is_key_error(reply)) return {};
  if (reply.is_exception()) throw_server_error(reply, link.name() + ": loadBefore");
  if (reply.args().is_none()) return {};
  const auto parts = sequence(reply.args());
  const auto serial = parts && parts->size() == 3 ? id_of((*parts)[1]) : std::nullopt;
  if (!serial) throw Corrupt(link.name() + ": loadBefore gave no record");
  const auto next = id_of((*parts)[2]);
  return {Tid{*serial}, next ? std::optional(Tid{*next}) : std::nullopt};
}

Found before(Link& link, Oid oid, Tid tid) {
  const Arg args[] = {Arg(oid), Arg(tid)};
  return found_in(link, *link.ask(link.patience(), "loadBefore", args));
}

// The only transaction that can be the one.
std::optional<Tid> candidate(Link& link, const Fingerprint::Mark& mark) {
  if (mark.base != kNoTid) {
    const Found found = before(link, mark.probe, Tid{mark.base.value + 1});
    if (found.serial == mark.base) return found.next;
    throw NotFound(link.name() +
                   ": whether a transaction was committed cannot be told any more: " + "object " +
                   mark.probe.brief() + " of tid " + mark.base.hex() + " was packed away");
  }
  // A new object's first revision.
  std::optional<Tid> first;
  for (Tid tid = kMaxTid;;) {
    const Found found = before(link, mark.probe, tid);
    if (found.serial == kNoTid) return first;
    first = tid = found.serial;
  }
}

// What the records of a transaction were made from.
std::map<Oid, Tid> bases_of(Link& link, Tid tid, std::span<const Oid> oids) {
  std::map<Oid, Tid> bases;
  const auto patience = link.patience();
  std::deque<std::pair<Oid, std::future<Reply>>> ahead;
  for (std::size_t next = 0; next < oids.size() || !ahead.empty();) {
    if (next < oids.size() && ahead.size() < kMostAhead) {
      const Arg args[] = {Arg(oids[next]), Arg(tid)};
      ahead.emplace_back(oids[next], link.ready(patience)->call("loadBefore", args));
      ++next;
      continue;
    }
    auto [oid, answer] = std::move(ahead.front());
    ahead.pop_front();
    const Reply reply = link.await(answer, link.patience(), "loadBefore");
    bases[oid] = reply ? found_in(link, *reply).serial : before(link, oid, tid).serial;
  }
  return bases;
}

bool is_same(Link& link, Tid tid, const Fingerprint::Mark& mark) {
  TransactionWalk walk(link, tid, tid);
  const auto info = walk.next();
  if (!info) return false;
  Fingerprint seen;
  std::size_t records = 0;
  bool other = false;
  walk.records([&](Oid oid, std::optional<ByteView> data) {
    ++records;
    other |= !data;
    if (data) seen.add_record(oid, kNoTid, std::span(&*data, 1));
    if (mark.resolved.contains(oid)) seen.add_resolved(oid);
  });
  const std::vector<Oid> oids = seen.oids();
  if (other || oids.size() != records) return false;  // we store bytes, and once for each object
  for (const auto& [oid, base] : bases_of(link, tid, oids)) seen.set_base(oid, base);
  const auto found = seen.mark(info->user, info->description);
  return found && found->digest == mark.digest;
}

}  // namespace

std::optional<Tid> find_transaction(Link& link, const Fingerprint::Mark& mark,
                                    std::uint64_t bytes) {
  wait_until_decided(link, bytes);
  const auto tid = candidate(link, mark);
  return tid && is_same(link, *tid, mark) ? tid : std::nullopt;
}

}  // namespace zbig::zeo
