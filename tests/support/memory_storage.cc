// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/memory_storage.h"

#include <algorithm>
#include <cstring>

#include "zodb/error.h"

namespace zbig::test {

class MemoryStorage::Listener : public Subscription {
 public:
  Listener(MemoryStorage& storage, InvalidationFn callback)
      : callback(std::move(callback)), storage_(storage) {
    storage_.listeners_.insert(this);
  }
  ~Listener() override { storage_.listeners_.erase(this); }
  InvalidationFn callback;

 private:
  MemoryStorage& storage_;
};

class MemoryStorage::Cursor : public TransactionCursor {
 public:
  explicit Cursor(std::vector<TransactionInfo> infos) : infos_(std::move(infos)) {}
  std::optional<TransactionInfo> next() override {
    if (at_ == infos_.size()) return std::nullopt;
    return infos_[at_++];
  }

 private:
  std::vector<TransactionInfo> infos_;
  std::size_t at_ = 0;
};

class MemoryStorage::Transaction : public StorageTransaction {
 public:
  Transaction(MemoryStorage& storage, TransactionMeta meta)
      : storage_(storage), meta_(std::move(meta)) {
    storage_.checked_.clear();
  }

  void store(Oid oid, Tid base, std::span<const ByteView> parts) override {
    if (storage_.fail_store) storage_.fail_store(oid);
    require_current(oid, base);
    Bytes record;
    for (const ByteView part : parts) zbig::append(record, part);
    records_.emplace_back(oid, std::move(record));
  }
  void check_current(Oid oid, Tid serial) override {
    storage_.checked_.push_back(oid);
    require_current(oid, serial);
  }
  std::vector<Oid> vote() override { return {}; }
  Tid finish() override { return storage_.append(meta_, std::move(records_)); }
  void abort() noexcept override { records_.clear(); }

 private:
  void require_current(Oid oid, Tid base) {
    const std::scoped_lock lock(storage_.mutex_);
    const auto at = storage_.objects_.find(oid);
    const Tid current = at == storage_.objects_.end() ? kNoTid : at->second.back().tid;
    if (current != base) throw Conflict("object " + oid.hex() + " changed", oid, current, base);
  }

  MemoryStorage& storage_;
  TransactionMeta meta_;
  std::vector<std::pair<Oid, std::optional<Bytes>>> records_;
};

MemoryStorage::MemoryStorage() = default;
MemoryStorage::~MemoryStorage() = default;

MemoryStorage::Counts MemoryStorage::counts() const {
  const std::scoped_lock lock(mutex_);
  return counts_;
}

void MemoryStorage::reset_counts() {
  const std::scoped_lock lock(mutex_);
  counts_ = {};
}

std::vector<MemoryStorage::Stored> MemoryStorage::stored(Tid tid) const {
  const std::scoped_lock lock(mutex_);
  return log_.at(tid).second;
}

std::vector<Oid> MemoryStorage::checked() const { return checked_; }

Tid MemoryStorage::commit(const std::vector<std::pair<Oid, std::optional<Bytes>>>& records,
                          const std::string& user, const std::string& description) {
  return append({user, description, {}}, records);
}

Tid MemoryStorage::append(const TransactionMeta& meta,
                          std::vector<std::pair<Oid, std::optional<Bytes>>> records) {
  std::vector<Oid> oids;
  Tid tid;
  {
    const std::scoped_lock lock(mutex_);
    tid = last_tid_ == kNoTid ? Tid{0x0405e70000000000} : Tid{last_tid_.value + (1u << 20)};
    auto& [info, stored] = log_[tid];
    info.tid = tid;
    info.user = meta.user;
    info.description = meta.description;
    info.extension = meta.extension;
    for (auto& [oid, data] : records) {
      info.stored.push_back({oid, data ? data->size() : 0});
      stored.push_back({oid, data.value_or(Bytes())});
      std::vector<Revised>& revisions = objects_[oid];
      if (!revisions.empty() && revisions.back().tid == tid) revisions.pop_back();
      revisions.push_back({tid, std::nullopt});
      if (data) revisions.back().data = std::make_shared<const Bytes>(std::move(*data));
      last_oid_ = std::max(last_oid_, oid);
      oids.push_back(oid);
    }
    last_tid_ = tid;
  }
  for (Listener* listener : listeners_) listener->callback(tid, oids);
  return tid;
}

Tid MemoryStorage::last_tid() const {
  const std::scoped_lock lock(mutex_);
  return last_tid_;
}

const MemoryStorage::Revised* MemoryStorage::find(Oid oid, Tid at) const {
  const auto object = objects_.find(oid);
  if (object == objects_.end()) return nullptr;
  const std::vector<Revised>& revisions = object->second;
  auto after = std::upper_bound(revisions.begin(), revisions.end(), at,
                                [](Tid tid, const Revised& revised) { return tid < revised.tid; });
  if (after == revisions.begin()) return nullptr;
  --after;
  return after->data ? &*after : nullptr;
}

void MemoryStorage::locate(std::span<const Oid> oids, Tid at,
                           std::span<std::optional<RecordRef>> out) const {
  const std::scoped_lock lock(mutex_);
  ++counts_.locate_batches;
  counts_.located += oids.size();
  for (std::size_t i = 0; i < oids.size(); ++i) {
    const Revised* revised = find(oids[i], at);
    out[i] = revised == nullptr
                 ? std::nullopt
                 : std::optional(RecordRef{oids[i], revised->tid, (*revised->data)->size(), 0, 0});
  }
}

void MemoryStorage::read(std::span<const ReadPart> parts) const {
  const std::scoped_lock lock(mutex_);
  ++counts_.read_batches;
  counts_.parts += parts.size();
  for (const ReadPart& part : parts) {
    const Revised* revised = find(part.ref.oid, part.ref.serial);
    invariant(revised != nullptr && revised->tid == part.ref.serial, "read of no revision");
    const Bytes& data = **revised->data;
    invariant(part.offset + part.out.size() <= data.size(), "read past the end of a record");
    if (!part.out.empty()) {
      std::memcpy(part.out.data(), data.data() + part.offset, part.out.size());
    }
    counts_.bytes_read += part.out.size();
  }
}

void MemoryStorage::read_direct(std::span<DirectRead> reads, Tid at) const {
  const std::scoped_lock lock(mutex_);
  ++counts_.read_batches;
  for (DirectRead& direct : reads) {
    const Revised* revised = find(direct.oid, at);
    if (revised == nullptr) {
      direct.answer(std::nullopt);
      continue;
    }
    const Bytes& data = **revised->data;
    direct.answer(RecordRef{direct.oid, revised->tid, data.size(), 0, 0});
    std::copy_n(data.begin(), direct.head_size, direct.head.begin());
    if (direct.out_size > 0) {
      std::memcpy(direct.out.data(), data.data() + direct.offset, direct.out_size);
    }
    counts_.bytes_read += direct.head_size + direct.out_size;
  }
}

void MemoryStorage::load(std::span<const Oid> oids, Tid at, std::uint64_t max_size,
                         std::span<std::optional<Record>> out) const {
  const std::scoped_lock lock(mutex_);
  ++counts_.load_batches;
  counts_.loaded += oids.size();
  for (std::size_t i = 0; i < oids.size(); ++i) {
    const Revised* revised = find(oids[i], at);
    out[i].reset();
    if (revised == nullptr) continue;
    if ((*revised->data)->size() > max_size) throw Corrupt("object " + oids[i].hex() + ": too big");
    out[i] = Record{revised->tid, **revised->data};
  }
}

std::unique_ptr<TransactionCursor> MemoryStorage::transactions(Tid first, Tid last,
                                                               bool backwards) const {
  const std::scoped_lock lock(mutex_);
  std::vector<TransactionInfo> infos;
  for (const auto& [tid, entry] : log_) {
    if (first <= tid && tid <= last) infos.push_back(entry.first);
  }
  if (backwards) std::reverse(infos.begin(), infos.end());
  return std::make_unique<Cursor>(std::move(infos));
}

std::vector<Revision> MemoryStorage::history(Oid oid, std::size_t limit) const {
  const std::scoped_lock lock(mutex_);
  std::vector<Revision> result;
  const auto object = objects_.find(oid);
  if (object == objects_.end()) return result;
  for (auto at = object->second.rbegin(); at != object->second.rend(); ++at) {
    if (result.size() == limit) break;
    const TransactionInfo& info = log_.at(at->tid).first;
    result.push_back({at->tid, at->data ? (*at->data)->size() : 0, info.user, info.description});
  }
  return result;
}

std::unique_ptr<Subscription> MemoryStorage::subscribe(InvalidationFn callback) {
  return std::make_unique<Listener>(*this, std::move(callback));
}

Oid MemoryStorage::new_oid() {
  const std::scoped_lock lock(mutex_);
  return last_oid_ = Oid{last_oid_.value + 1};
}

std::unique_ptr<StorageTransaction> MemoryStorage::begin(const TransactionMeta& meta) {
  if (const auto hook = before_begin) hook();  // a copy, as it may take itself away
  {
    const std::scoped_lock lock(mutex_);
    ++counts_.begun;
  }
  return std::make_unique<Transaction>(*this, meta);
}

}  // namespace zbig::test
