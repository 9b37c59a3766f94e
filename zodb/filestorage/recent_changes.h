// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "zodb/ids.h"

// RecentChanges: what the last few transactions stored, of those that came while the file was open.
//
// Who moves a view asks for it with each transaction, again and again; the file tells it with a
// dozen reads each time. A transaction of very many objects is not kept, nor what was before it.
//
// Threads: none of its own; the owner locks.

namespace zbig::fs {

class RecentChanges {
 public:
  // Knows nothing of `upto` and before.
  void reset(Tid upto);
  void add(Tid tid, std::span<const Oid> oids);
  // Union of what transactions with after < tid <= upto stored, ascending; nothing where that is
  // not known any more.
  std::optional<std::vector<Oid>> between(Tid after, Tid upto) const;

 private:
  static constexpr std::size_t kMost = 32;      // transactions
  static constexpr std::size_t kMostOids = 64;  // of one

  struct Change {
    Tid tid;
    std::vector<Oid> oids;
  };
  Tid known_after_;
  std::deque<Change> changes_;
};

}  // namespace zbig::fs
