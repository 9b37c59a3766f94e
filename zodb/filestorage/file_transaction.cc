// SPDX-License-Identifier: BSD-3-Clause
#include <chrono>

#include "zodb/error.h"
#include "zodb/filestorage/file_storage.h"

// FileStorage's transaction: conflicts, and the two phases over a TransactionWriter.
//
// Between begin and the end of the transaction nobody else writes to the file (the lock file keeps
// other processes out, the gate other threads), so what store() and check_current() compared still
// holds at finish.

namespace zbig::fs {

class FileStorage::Transaction : public StorageTransaction {
 public:
  // The gate is open for us, and `storage` outlives us.
  Transaction(FileStorage& storage, std::shared_ptr<DataFile> file, std::uint64_t end, Tid tid,
              const TransactionMeta& meta)
      : storage_(storage), file_(std::move(file)), writer_(*file_, end, tid, meta) {}
  ~Transaction() override { abort(); }

  using StorageTransaction::store;
  void store(Oid oid, Tid base, std::span<const ByteView> parts) override;
  void check_current(Oid oid, Tid serial) override;
  std::vector<Oid> vote() override;
  std::string voted_mark() const override;
  Tid finish() override;
  void abort() noexcept override;

 private:
  enum class State { kOpen, kVoted, kEnded };

  struct Current {
    std::uint64_t position = 0;  // 0: there is no such object
    Tid serial;
  };
  Current current(Oid oid) const;
  void expect(State state, const char* call) const;

  FileStorage& storage_;
  std::shared_ptr<DataFile> file_;
  TransactionWriter writer_;
  State state_ = State::kOpen;
};

std::unique_ptr<StorageTransaction> FileStorage::begin(const TransactionMeta& meta) {
  if (!lock_) throw ReadOnly(path_ + " is open for reading only");
  check_meta(meta);
  enter();
  try {
    std::shared_ptr<DataFile> file;
    Committed committed;
    {
      const std::lock_guard follow(follow_mutex_);
      check_not_failed();
      file = log_.file;
      committed = log_.committed;
      if (file->replaced()) {
        fail(ErrorCode::kFailed,
             path_ +
                 " was replaced by another file while we have it open for writing; nothing "
                 "more is committed to it");
      }
      check_unchanged();
    }
    // An aborted transaction's bytes, if it could not cut them off then.
    if (file->size() > committed.end) file->truncate(committed.end);
    const auto now =
        std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now());
    last_begun_ = Tid::from_time(now).later_than(std::max(last_begun_, committed.last_tid));
    return std::make_unique<Transaction>(*this, std::move(file), committed.end, last_begun_, meta);
  } catch (...) {
    leave();
    throw;
  }
}

FileStorage::Transaction::Current FileStorage::Transaction::current(Oid oid) const {
  const auto sight = storage_.look_up(std::span(&oid, 1));
  if (sight.positions[0] == 0) return {};
  const auto revision = RevisionReader(*sight.file, sight.committed).at(sight.positions[0], oid);
  return {sight.positions[0], revision.header.tid};
}

void FileStorage::Transaction::expect(State state, const char* call) const {
  if (state_ == state) return;
  throw Invalid(std::string(call) + " on a transaction of " + storage_.path_ +
                (state_ == State::kEnded ? " that has ended" : " that has not come to that"));
}

void FileStorage::Transaction::store(Oid oid, Tid base, std::span<const ByteView> parts) {
  expect(State::kOpen, "store");
  const auto now = current(oid);
  if (now.position != 0 && now.serial != base) {
    throw Conflict("object " + oid.brief() + " in " + storage_.path_ + ": stored by transaction " +
                       now.serial.hex() + " since it was read at " + base.hex(),
                   oid, now.serial, base);
  }
  try {
    writer_.add(oid, now.position, parts);
  } catch (...) {
    abort();  // part of the record may be in the file: there is no way on from here
    throw;
  }
  storage_.raise_largest_oid(oid);
}

void FileStorage::Transaction::check_current(Oid oid, Tid serial) {
  expect(State::kOpen, "check_current");
  const auto now = current(oid);
  if (now.serial == serial && now.position != 0) return;
  throw Conflict("object " + oid.brief() + " in " + storage_.path_ + ": read at " + serial.hex() +
                     (now.position == 0 ? ", it is not there"
                                        : ", stored by transaction " + now.serial.hex() + " since"),
                 oid, now.serial, serial);
}

std::vector<Oid> FileStorage::Transaction::vote() {
  expect(State::kOpen, "vote");
  try {
    writer_.vote();
  } catch (...) {
    abort();
    throw;
  }
  state_ = State::kVoted;
  return {};
}

std::string FileStorage::Transaction::voted_mark() const {
  const Tid tid = writer_.transaction().header.tid;
  // Not one that is no time but the head's successor, as when the clock is behind: if this
  // transaction does not land, another client's may get the same.
  return tid.value > storage_.last_tid().value + 1 ? tid.hex() : "";
}

Tid FileStorage::Transaction::finish() {
  expect(State::kVoted, "finish");
  state_ = State::kEnded;
  try {
    writer_.finish();
  } catch (const Error& error) {
    const std::lock_guard follow(storage_.follow_mutex_);
    storage_.leave();
    storage_.fail(ErrorCode::kFailed, "transaction " + writer_.transaction().header.tid.hex() +
                                          " in " + storage_.path_ + " may be committed or not: " +
                                          error.what() + "; open the database again to see");
  }
  storage_.committed(writer_.transaction());
  storage_.leave();
  return writer_.transaction().header.tid;
}

void FileStorage::Transaction::abort() noexcept {
  if (state_ == State::kEnded) return;
  state_ = State::kEnded;
  writer_.abort();
  storage_.leave();
}

}  // namespace zbig::fs
