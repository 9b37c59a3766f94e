// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "zodb/subscribers.h"
#include "zodb/zeo/object_cache.h"

// Feed: what is known of the database's history, transaction by transaction, as the server tells
// it; and the head, the newest tid that a reader may ask for.
//
// N1  The head moves last: by then the cache has been told, subscribers have been called, and the
//     log has the transaction. It never goes back.
// N2  The log knows all that changed in (log_begin_, head]. It is bounded; what is older has to be
//     asked of the server.
//
// The loop's thread brings news; any thread may ask.

namespace zbig::zeo {

class Feed {
 public:
  Feed(ObjectCache& cache, Subscribers& subscribers) : cache_(cache), subscribers_(subscribers) {}

  Tid head() const { return Tid{head_.load(std::memory_order_acquire)}; }

  // --- the loop's thread

  // The first time that the head is known.
  void begin(Tid head);
  // Transaction `tid` stored `oids`. May be told again, and late.
  void commit(Tid tid, std::span<const Oid> oids);
  // While the connection was away, or unseen, `oids` were stored by transactions up to `tid`; of
  // which nothing is known, if nothing is given.
  void catch_up(Tid tid, std::optional<std::span<const Oid>> oids);

  // --- any thread

  // What (after, upto] stored, ascending, if the log knows; maybe more than that.
  std::optional<std::vector<Oid>> changed(Tid after, Tid upto) const;

 private:
  static constexpr std::size_t kMostOids = 4u << 20;  // in the log

  struct Entry {
    Tid after;
    Tid upto;
    std::vector<Oid> oids;
  };
  void log(Tid after, Tid tid, std::span<const Oid> oids);
  void publish(Tid tid, std::span<const Oid> oids);

  ObjectCache& cache_;
  Subscribers& subscribers_;
  std::atomic<std::uint64_t> head_ = 0;

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::deque<Entry> log_;
  Tid log_begin_;
  std::size_t logged_oids_ = 0;
};

}  // namespace zbig::zeo
