// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "zodb/storage.h"

// MemoryStorage: a Storage in a few maps, for tests.
//
// It keeps every revision, refuses conflicting stores as ZODB's MappingStorage does (nothing is
// resolved), counts the batches that a storage with latency would have to wait for, and lets a test
// step in between another client's moves: `before_begin` runs when a transaction is asked for, and
// `fail_store` may throw what a full disk would.

namespace zbig::test {

class MemoryStorage : public Storage {
 public:
  MemoryStorage();
  ~MemoryStorage() override;

  // --- what tests look at
  struct Counts {
    std::uint64_t locate_batches = 0;
    std::uint64_t read_batches = 0;
    std::uint64_t load_batches = 0;
    std::uint64_t located = 0;
    std::uint64_t parts = 0;
    std::uint64_t bytes_read = 0;
    std::uint64_t loaded = 0;
    std::uint64_t begun = 0;
    std::uint64_t batches() const { return locate_batches + read_batches + load_batches; }
  };
  Counts counts() const;
  void reset_counts();

  // What the transaction `tid` stored, in order.
  struct Stored {
    Oid oid;
    Bytes record;
  };
  std::vector<Stored> stored(Tid tid) const;
  // The objects that the last transaction checked to be current.
  std::vector<Oid> checked() const;

  std::function<void()> before_begin;
  std::function<void(Oid)> fail_store;

  // Commits `records` as they are, as another client might. An absent record is a deletion.
  Tid commit(const std::vector<std::pair<Oid, std::optional<Bytes>>>& records,
             const std::string& user = "", const std::string& description = "");

  // --- Storage
  const std::string& url() const override { return url_; }
  bool read_only() const override { return false; }
  Tid last_tid() const override;
  Tid sync() override { return last_tid(); }
  void locate(std::span<const Oid> oids, Tid at,
              std::span<std::optional<RecordRef>> out) const override;
  void read(std::span<const ReadPart> parts) const override;
  void read_direct(std::span<DirectRead> reads, Tid at) const override;
  void load(std::span<const Oid> oids, Tid at, std::uint64_t max_size,
            std::span<std::optional<Record>> out) const override;
  std::unique_ptr<TransactionCursor> transactions(Tid first, Tid last,
                                                  bool backwards) const override;
  std::vector<Revision> history(Oid oid, std::size_t limit) const override;
  std::unique_ptr<Subscription> subscribe(InvalidationFn callback) override;
  Oid new_oid() override;
  std::unique_ptr<StorageTransaction> begin(const TransactionMeta& meta) override;

  using Storage::load;
  using Storage::locate;
  using Storage::read;

 private:
  class Transaction;
  class Cursor;
  class Listener;
  struct Revised {
    Tid tid;
    std::optional<std::shared_ptr<const Bytes>> data;
  };
  Tid append(const TransactionMeta& meta,
             std::vector<std::pair<Oid, std::optional<Bytes>>> records);
  const Revised* find(Oid oid, Tid at) const;  // with mutex_ held

  const std::string url_ = "memory:";
  mutable std::mutex mutex_;
  mutable Counts counts_;
  std::map<Oid, std::vector<Revised>> objects_;
  std::map<Tid, std::pair<TransactionInfo, std::vector<Stored>>> log_;
  std::vector<Oid> checked_;
  std::set<Listener*> listeners_;
  Oid last_oid_;
  Tid last_tid_;
};

}  // namespace zbig::test
