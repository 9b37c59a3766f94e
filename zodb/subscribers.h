// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <span>

#include "zodb/storage.h"

// Who wants to be told of commits: the list behind Storage::subscribe, for every backend.
//
// Ending a subscription waits for a running call of its callback, so that what the callback uses
// can be destroyed afterwards. No lock is held while a callback runs; a callback must therefore not
// end its own subscription (it would wait for itself).

namespace zbig {

class Subscribers {
 public:
  Subscribers();
  ~Subscribers();

  // May outlive this list.
  [[nodiscard]] std::unique_ptr<Subscription> add(InvalidationFn callback);
  // Calls every callback. One thread at a time, which is what keeps transactions in order. The
  // commit stands by now, so there is nobody an exception of a callback could be given to.
  void notify(Tid tid, std::span<const Oid> oids) noexcept;

 private:
  class List;
  class Entry;
  std::shared_ptr<List> list_;
};

}  // namespace zbig
