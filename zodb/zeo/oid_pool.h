// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "zodb/zeo/link.h"

// OidPool: oids for new objects, which a server hands out a hundred at a time.
//
// A server counts them in memory: one that starts again may give the same numbers to somebody else.
// So an oid is good only for a transaction over the connection that it came by, and `gave` is asked
// before a new object is stored. Any thread.

namespace zbig::zeo {

class OidPool {
 public:
  explicit OidPool(Link& link) : link_(link) {}

  // Throws what the server says (ReadOnly), Unavailable.
  Oid next();
  // Did it come by this connection?
  bool gave(const Channel& channel, Oid oid) const;

 private:
  void refill();

  static constexpr std::size_t kMostCalls = 16;  // at once

  Link& link_;
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::weak_ptr<Channel> channel_;  // the link's, which goes before us
  std::deque<Oid> oids_;
  std::vector<std::pair<Oid, Oid>> given_;  // first and last of runs, by this channel
  std::size_t calls_ = 1;
};

}  // namespace zbig::zeo
