// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "zodb/storage.h"
#include "zodb/zeo/link.h"

// The database's transactions, as a server tells them: forwards only, one call for each transaction
// and each record, and records with all of their data.

namespace zbig::zeo {

// A walk over the transactions with first <= tid <= last. If the connection breaks, it goes on
// over the next one from where it was. One thread at a time.
class TransactionWalk {
 public:
  using OnRecord = std::function<void(Oid oid, std::optional<ByteView> data)>;

  TransactionWalk(Link& link, Tid first, Tid last) : link_(link), first_(first), last_(last) {}
  ~TransactionWalk();
  TransactionWalk(const TransactionWalk&) = delete;
  TransactionWalk& operator=(const TransactionWalk&) = delete;

  // The next one, without what it stored; nothing at the end. Throws Unavailable, Corrupt, Failed
  // (what the server says).
  std::optional<TransactionInfo> next();
  // What the last one stored, in its order; nothing for what was undone to nothing or deleted.
  void records(const OnRecord& on_record);

 private:
  // Nothing: the connection broke.
  std::optional<Value> call(std::string_view method, std::span<const Arg> args);
  std::int64_t number(std::string_view method, Value answer) const;
  bool open(Tid first);
  std::optional<std::optional<TransactionInfo>> try_next(Tid first);
  bool try_records(std::size_t skip, std::size_t& seen, const OnRecord& on_record);
  bool take_record(const Reply& reply, std::size_t skip, std::size_t& seen,
                   const OnRecord& on_record);
  [[noreturn]] void corrupt(std::string_view method) const;

  Link& link_;
  Tid first_;  // of what is still to come
  const Tid last_;
  Tid current_;
  std::shared_ptr<Channel> channel_;
  std::int64_t iterator_ = 0;
  Reply reply_;  // whose values are in use
};

std::unique_ptr<TransactionCursor> transactions(Link& link, Tid first, Tid last, bool backwards);

}  // namespace zbig::zeo
