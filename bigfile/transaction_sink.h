// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "zodb/storage.h"

// TransactionSink: the transaction of a commit, begun when there is something to store.

namespace zbig {

class TransactionSink {
 public:
  TransactionSink(Storage& storage, const TransactionMeta& meta) : storage_(storage), meta_(meta) {}

  // As StorageTransaction::store.
  void store(Oid oid, Tid base, std::span<const ByteView> parts);
  void store(Oid oid, Tid base, ByteView record) { store(oid, base, std::span(&record, 1)); }
  // The object must still be at `serial` when the transaction commits. Looked at in the end, for
  // those objects that the transaction does not store itself.
  void check(Oid oid, Tid serial) { checks_.push_back({oid, serial}); }

  // Checks, votes, calls `voted` (as VotedFn of bigfile/commit.h) and finishes. Nothing if nothing
  // was stored.
  std::optional<Tid> finish(const std::function<void(const std::string&)>& voted);

  std::uint64_t objects() const { return objects_; }
  std::uint64_t bytes() const { return bytes_; }

 private:
  struct Check {
    Oid oid;
    Tid serial;
  };
  Storage& storage_;
  const TransactionMeta& meta_;
  std::unique_ptr<StorageTransaction> transaction_;  // aborts when it is destroyed
  std::unordered_set<Oid> stored_;
  std::vector<Check> checks_;
  std::uint64_t objects_ = 0;
  std::uint64_t bytes_ = 0;
};

}  // namespace zbig
