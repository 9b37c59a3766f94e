// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/filestorage/file_storage.h"

#include <chrono>
#include <filesystem>

#include "zodb/error.h"
#include "zodb/filestorage/continuity.h"
#include "zodb/filestorage/index_file.h"
#include "zodb/filestorage/log_cursor.h"
#include "zodb/url.h"

namespace zbig {

std::unique_ptr<Storage> open_filestorage(const std::string& path, OpenMode mode) {
  return std::make_unique<fs::FileStorage>(path, mode);
}

}  // namespace zbig

namespace zbig::fs {

namespace {

// A commit of terabytes may take long; a transaction that was forgotten must not stop us for ever.
constexpr std::chrono::minutes kLongestTransaction{30};
// Between the two renames of a pack.
constexpr std::chrono::seconds kPackPatience{1};

std::string url_of(const std::string& path) {
  return "file://" + percent_encode(std::filesystem::absolute(path).lexically_normal().string());
}

std::unique_ptr<LockFile> lock_for(const std::string& path, OpenMode mode) {
  if (mode == OpenMode::kRead) return nullptr;
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (std::filesystem::is_directory(status)) {
    throw Invalid(path + " is a directory, not a FileStorage's file");
  }
  if (mode == OpenMode::kWrite && status.type() == std::filesystem::file_type::not_found) {
    throw NotFound("there is no database " + path);
  }
  return std::make_unique<LockFile>(path + ".lock", path);
}

}  // namespace

FileStorage::FileStorage(const std::string& path, OpenMode mode)
    : path_(path), url_(url_of(path)), lock_(lock_for(path, mode)) {
  if (mode == OpenMode::kCreate && !std::filesystem::exists(path_)) create_log(path_);
  log_ = open_log(path_, lock_ ? DataFile::Access::kWrite : DataFile::Access::kRead, 0);
  last_tid_ = log_.committed.last_tid.value;
  last_begun_ = log_.committed.last_tid;
  recent_.reset(log_.committed.last_tid);
  if (!lock_) return;
  cut_tail(log_);
  largest_oid_ = log_.index.largest().value_or(Oid{0}).value;
  if (!log_.index_used) save_index();
}

FileStorage::~FileStorage() {
  if (lock_ && !failed_ && !log_.index_saved) save_index();
}

void FileStorage::save_index() noexcept {
  try {
    if (log_.index.has_delta() || !log_.index.image().canonical_buckets()) {
      log_.index.adopt(log_.index.merged(log_.committed.end, "the index of " + path_));
    }
    fs::save_index(path_, log_.index.image(), log_.committed.end);
    log_.index_saved = true;
  } catch (const Error&) {
    // The next open scans what the old index lacks: slower, and nothing else.
  }
}

// --- reading

void FileStorage::check_not_failed() const {
  if (!failed_) return;
  if (failed_->code() == ErrorCode::kCorrupt) throw Corrupt(failed_->what());
  throw Failed(failed_->what());
}

FileStorage::Sight FileStorage::look_up(std::span<const Oid> oids) const {
  Sight sight;
  sight.positions.reserve(oids.size());
  const std::shared_lock lock(state_mutex_);
  check_not_failed();
  sight.file = log_.file;
  sight.committed = log_.committed;
  for (const auto oid : oids) sight.positions.push_back(log_.index.find(oid).value_or(0));
  return sight;
}

std::unique_ptr<TransactionCursor> FileStorage::transactions(Tid first, Tid last,
                                                             bool backwards) const {
  auto sight = look_up({});
  return std::make_unique<LogCursor>(std::move(sight.file), sight.committed, first, last,
                                     backwards);
}

std::vector<Revision> FileStorage::history(Oid oid, std::size_t limit) const {
  std::vector<Revision> out;
  const auto sight = look_up(std::span(&oid, 1));
  if (sight.positions[0] == 0 || limit == 0) return out;
  const RevisionReader reader(*sight.file, sight.committed);
  LogWalker walker(*sight.file, sight.committed);
  std::optional<RevisionHeader> revision = reader.at(sight.positions[0], oid);
  for (; revision && out.size() < limit; revision = reader.before(*revision)) {
    const auto place = walker.at(revision->header.transaction);
    if (!place || place->header.tid != revision->header.tid) {
      sight.file->corrupt(revision->position,
                          "the record of object " + oid.brief() + " is of no transaction");
    }
    auto meta = walker.meta(*place);
    const auto data = reader.data(*revision);
    out.push_back({revision->header.tid, data ? data->size : 0, std::move(meta.user),
                   std::move(meta.description)});
  }
  return out;
}

std::vector<Oid> FileStorage::changed_oids(Tid after, Tid upto) const {
  {
    const std::shared_lock lock(state_mutex_);
    check_not_failed();
    if (auto oids = recent_.between(after, upto)) return std::move(*oids);
  }
  return Storage::changed_oids(after, upto);
}

std::unique_ptr<Subscription> FileStorage::subscribe(InvalidationFn callback) {
  return subscribers_.add(std::move(callback));
}

// --- following

Tid FileStorage::sync() {
  if (lock_) {
    const std::shared_lock lock(state_mutex_);
    check_not_failed();
    return last_tid();
  }
  const std::lock_guard follow(follow_mutex_);
  check_not_gone();
  if (log_.file->replaced()) switch_file();
  check_unchanged();
  if (failed_) {
    const std::unique_lock lock(state_mutex_);
    failed_.reset();
  }
  LogScanner scanner(*log_.file, log_.committed.end, log_.committed.last_tid);
  while (const auto* transaction = scanner.next(log_.index)) add(*transaction);
  merge_index_if_large();
  return last_tid();
}

void FileStorage::add(const ScannedTransaction& transaction) {
  std::vector<Oid> oids;
  oids.reserve(transaction.records.size());
  for (const auto& record : transaction.records) oids.push_back(record.oid);
  const auto tid = transaction.header.tid;
  {
    const std::unique_lock lock(state_mutex_);
    log_.add(transaction);
    recent_.add(tid, oids);
  }
  if (tid <= last_tid()) return;  // S3
  subscribers_.notify(tid, oids);
  last_tid_.store(tid.value, std::memory_order_release);
}

// A pack takes the file away for a moment. If it stays away, others may commit to another that we
// are not told of.
void FileStorage::check_not_gone() {
  const auto now = std::chrono::steady_clock::now();
  if (!log_.file->gone()) {
    gone_since_.reset();
  } else if (!gone_since_) {
    gone_since_ = now;
  } else if (now - *gone_since_ > kPackPatience) {
    throw Unavailable(path_ + " is not there any more");
  }
}

void FileStorage::check_unchanged() {
  const auto& file = *log_.file;
  const auto end = log_.committed.end;
  const auto size = file.size();
  if (log_.last_transaction == 0) {
    check_magic(file);
    return;
  }
  if (size < end) {
    fail(ErrorCode::kCorrupt, path_ + " is " + std::to_string(size) + " bytes long and was " +
                                  std::to_string(end) + ": committed transactions were cut off");
  }
  const auto start = transaction_before(file, kMagicSize, end);
  std::byte tid[8] = {};
  if (start == log_.last_transaction) file.read_some(*start, tid);
  if (get_be<8>(tid) != log_.committed.last_tid.value) {
    fail(ErrorCode::kCorrupt, path_ + " at " + std::to_string(log_.last_transaction) +
                                  ": transaction " + log_.committed.last_tid.hex() +
                                  " is no longer here: the file was overwritten");
  }
}

void FileStorage::switch_file() {
  auto log = open_log(path_, DataFile::Access::kRead, log_.file->generation() + 1);
  if (const auto break_at = first_break(log_, log)) {
    fail(ErrorCode::kCorrupt,
         path_ + " was replaced by a file that does not continue it: transaction " +
             break_at->hex() + " is not there as it was");
  }
  const auto seen = last_tid();
  LogWalker walker(*log.file, log.committed);
  auto position = walker.find(Tid{seen.value + 1});
  {
    const std::unique_lock lock(state_mutex_);
    log_ = std::move(log);
    recent_.reset(log_.committed.last_tid);
  }
  LogWalker news(*log_.file, log_.committed);
  for (auto place = news.at(position); place; place = news.at(place->end())) {
    std::vector<Oid> oids;
    if (place->header.status != TransactionHeader::kUndone) {
      for (const auto& record : news.records(*place)) oids.push_back(record.header.oid);
    }
    subscribers_.notify(place->header.tid, oids);
    last_tid_.store(place->header.tid.value, std::memory_order_release);
  }
}

void FileStorage::merge_index_if_large() {
  if (!log_.index.wants_merge()) return;
  auto image = log_.index.merged(log_.committed.end, "the index of " + path_);
  const std::unique_lock lock(state_mutex_);
  log_.index.adopt(std::move(image));
}

void FileStorage::fail(ErrorCode code, const std::string& sentence) {
  {
    const std::unique_lock lock(state_mutex_);
    failed_.emplace(code, sentence);
  }
  check_not_failed();
  broken_invariant("failed, and not failed", __FILE__, __LINE__);
}

// --- the gate of transactions; the transaction itself is in file_transaction.cc

Oid FileStorage::new_oid() {
  if (!lock_) throw ReadOnly(path_ + " is open for reading only: no new objects");
  return Oid{++largest_oid_};
}

void FileStorage::raise_largest_oid(Oid oid) {
  auto largest = largest_oid_.load();
  while (largest < oid.value && !largest_oid_.compare_exchange_weak(largest, oid.value)) {
  }
}

void FileStorage::enter() {
  std::unique_lock lock(gate_mutex_);
  if (!gate_opened_.wait_for(lock, kLongestTransaction, [&] { return !in_transaction_; })) {
    throw Busy(path_ + ": another transaction of this process is still in progress");
  }
  in_transaction_ = true;
}

void FileStorage::leave() noexcept {
  const std::lock_guard lock(gate_mutex_);
  in_transaction_ = false;
  gate_opened_.notify_one();
}

void FileStorage::committed(const ScannedTransaction& transaction) {
  const std::lock_guard follow(follow_mutex_);
  add(transaction);
  merge_index_if_large();
}

}  // namespace zbig::fs
