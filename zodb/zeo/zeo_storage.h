// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <semaphore>
#include <span>
#include <string>
#include <vector>

#include "zodb/storage.h"
#include "zodb/subscribers.h"
#include "zodb/zeo/feed.h"
#include "zodb/zeo/link.h"
#include "zodb/zeo/loader.h"
#include "zodb/zeo/object_cache.h"
#include "zodb/zeo/oid_pool.h"
#include "zodb/zeo/options.h"

// ZeoStorage: the Storage of a ZEO server. The parts do the work: the Link keeps a connection, the
// Feed knows what was committed, the Loader brings records through the ObjectCache.
//
// Writing is in zeo_transaction.cc: one transaction at a time, as the protocol has it.
//
// The protocol has no way to ask where a record is, or how large: `locate` loads it into the cache,
// and `read` copies from there.

namespace zbig::zeo {

class ZeoStorage : public Storage {
 public:
  ZeoStorage(const Options& options, OpenMode mode);

  const std::string& url() const override { return url_; }
  bool read_only() const override { return read_only_; }

  Tid last_tid() const override;
  Tid sync() override;

  void locate(std::span<const Oid> oids, Tid at,
              std::span<std::optional<RecordRef>> out) const override;
  void read(std::span<const ReadPart> parts) const override;
  void load(std::span<const Oid> oids, Tid at, std::uint64_t max_size,
            std::span<std::optional<Record>> out) const override;
  void prefetch(std::span<const Oid> oids, Tid at) const override;
  using Storage::load;
  using Storage::locate;
  using Storage::read;

  std::unique_ptr<TransactionCursor> transactions(Tid first, Tid last,
                                                  bool backwards) const override;
  std::vector<Revision> history(Oid oid, std::size_t limit) const override;
  std::vector<Oid> changed_oids(Tid after, Tid upto) const override;
  std::unique_ptr<Subscription> subscribe(InvalidationFn callback) override;

  Oid new_oid() override;
  std::unique_ptr<StorageTransaction> begin(const TransactionMeta& meta) override;
  std::optional<Tid> find_voted(const std::string& mark) const override;

 private:
  class Transaction;

  void check_writable() const;

  const std::string url_;
  const bool read_only_;
  const std::chrono::milliseconds wait_timeout_;
  Subscribers subscribers_;
  mutable ObjectCache cache_;
  Feed feed_;
  mutable Loader loader_;
  OidPool oids_;
  std::binary_semaphore gate_{1};  // taken by the transaction in progress
  std::int64_t last_txid_ = 0;     // the gate's holder's
  mutable Link link_;              // last: its thread uses all of the above
};

}  // namespace zbig::zeo
