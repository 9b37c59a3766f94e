// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <vector>

#include "zodb/error.h"
#include "zodb/filestorage/filestorage.h"
#include "zodb/filestorage/lock_file.h"
#include "zodb/filestorage/log.h"
#include "zodb/filestorage/recent_changes.h"
#include "zodb/filestorage/transaction_writer.h"
#include "zodb/subscribers.h"

// FileStorage: the Storage of one Data.fs. What is known of the file is the Log; this class lets
// readers, the one that follows the tail, and the one that commits use it at once.
//
// Reading. A reader holds state_mutex_ (shared) only to look positions up, and then reads the file
// without a lock: what is committed never changes. So no reader waits for a commit's I/O.
//
// S1  log_ changes only with follow_mutex_ and state_mutex_ (exclusive) held. So whoever holds
//     follow_mutex_ may read it without the other.
// S2  For every tid <= last_tid_, the log holds the transaction and the callbacks for it have run.
// S3  last_tid_ never goes back, also when a pack removed the last transaction.
// S4  A file that lost or changed what was committed, or whose last commit may have failed, is
//     never read on: failed_ is set, and every call throws it. A follower looks again at each
//     sync(), and goes on once all is there as it was.
//
// A pack replaces the file. The new one is opened and indexed while readers go on in the old one,
// is checked to continue its history, and takes its place; the old one closes with the last read
// in flight. A RecordRef of an old file is found again in the new one by its oid and serial.
//
// Locks: follow_mutex_ > gate_mutex_, state_mutex_. No lock is held across a read of a payload;
// follow_mutex_ is held while callbacks run, which is what keeps them in order.

namespace zbig::fs {

class FileStorage : public Storage {
 public:
  FileStorage(const std::string& path, OpenMode mode);
  ~FileStorage() override;

  const std::string& url() const override { return url_; }
  bool read_only() const override { return !lock_; }
  std::string place(const RecordRef& ref) const override {
    return path_ + " at " + std::to_string(ref.position);
  }

  Tid last_tid() const override { return Tid{last_tid_.load(std::memory_order_acquire)}; }
  Tid sync() override;

  void locate(std::span<const Oid> oids, Tid at,
              std::span<std::optional<RecordRef>> out) const override;
  void read(std::span<const ReadPart> parts) const override;
  void read_direct(std::span<DirectRead> reads, Tid at) const override;
  void load(std::span<const Oid> oids, Tid at, std::uint64_t max_size,
            std::span<std::optional<Record>> out) const override;
  using Storage::load;
  using Storage::locate;
  using Storage::read;

  std::unique_ptr<TransactionCursor> transactions(Tid first, Tid last,
                                                  bool backwards) const override;
  std::vector<Revision> history(Oid oid, std::size_t limit) const override;
  std::vector<Oid> changed_oids(Tid after, Tid upto) const override;
  std::unique_ptr<Subscription> subscribe(InvalidationFn callback) override;
  void check(const std::function<void(const std::string&)>& on_defect) const override;

  Oid new_oid() override;
  std::unique_ptr<StorageTransaction> begin(const TransactionMeta& meta) override;

 private:
  class Transaction;

  // The file as a reader sees it, and where the newest records of some objects are in it (0: the
  // object is unknown).
  struct Sight {
    std::shared_ptr<const DataFile> file;
    Committed committed;
    std::vector<std::uint64_t> positions;
  };
  Sight look_up(std::span<const Oid> oids) const;
  RecordRef found_again(const RecordRef& ref) const;

  // All of these with follow_mutex_ held.
  void add(const ScannedTransaction& transaction);
  void check_not_gone();
  void check_unchanged();
  void switch_file();
  void merge_index_if_large();
  void save_index() noexcept;  // only where no other thread is about
  [[noreturn]] void fail(ErrorCode code, const std::string& sentence);
  void check_not_failed() const;  // state_mutex_ will do, too

  // The transaction in progress.
  void enter();
  void leave() noexcept;
  void committed(const ScannedTransaction& transaction);
  void raise_largest_oid(Oid oid);

  const std::string path_;
  const std::string url_;
  std::unique_ptr<LockFile> lock_;  // only when opened for writing
  Subscribers subscribers_;

  mutable std::mutex follow_mutex_;
  mutable std::shared_mutex state_mutex_;
  Log log_;                      // S1
  RecentChanges recent_;         // likewise
  std::optional<Error> failed_;  // S1, S4
  // That nothing has the file's name; guarded by follow_mutex_.
  std::optional<std::chrono::steady_clock::time_point> gone_since_;
  std::atomic<std::uint64_t> last_tid_{0};

  std::mutex gate_mutex_;
  std::condition_variable gate_opened_;
  bool in_transaction_ = false;  // guarded by gate_mutex_
  Tid last_begun_;               // of whoever is in the transaction
  std::atomic<std::uint64_t> largest_oid_{0};
};

}  // namespace zbig::fs
