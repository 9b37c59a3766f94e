// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "zodb/bytes.h"
#include "zodb/ids.h"

// Storage: what zbig needs of a ZODB database, whichever program keeps it.
//
// The problem. A FileStorage answers a load in a microsecond, a ZEO server in a round trip; one
// keeps a record where a part of it can be read at once, the other sends whole records. So the
// interface is made of batches, and of two steps: `locate` finds the revision of each object as of
// a tid, `read` brings parts of revisions. A local storage does both with one system call each and
// no copy between the page cache and the caller's buffer; a network storage sends a whole batch
// before it waits, and keeps what it was sent in its cache between the two steps. `load` is both in
// one, for small records.
//
// What is visible. `last_tid()` is the newest transaction that this storage has been told of;
// invalidation callbacks for it have run before `last_tid()` returns it (ZODB's own rule
// since 5.6). Any tid up to it can be read; history is immutable, so what was read at a tid stays
// true for ever (a pack may remove it: NotFound).
//
// Writing. One transaction at a time, by the process's only writer. Errors of a store may surface
// there or at vote (network storages); after vote, finish does not fail for a logical reason.
//
// Threads: every method of Storage may be called by any thread at any time. A StorageTransaction
// belongs to one thread. Callbacks run on whichever thread learns of the commit, and must not call
// the storage back.
//
// Errors, everywhere: Corrupt (names object and place), Unavailable (past the deadline), Failed
// (I/O).

namespace zbig {

// A revision of an object, found. Valid for the lifetime of the storage that gave it.
struct RecordRef {
  Oid oid;
  Tid serial;                    // the transaction that made the revision
  std::uint64_t size = 0;        // bytes of the record
  std::uint64_t position = 0;    // the backend's own: where the record's data are
  std::uint64_t generation = 0;  // the backend's own: of which file (a pack makes another)
};

struct Record {
  Tid serial;
  Bytes data;
};

// One part of a batched read: out.size() bytes of the record, from `offset` (they exist: the caller
// keeps within ref.size).
struct ReadPart {
  RecordRef ref;
  std::uint64_t offset = 0;
  std::span<std::byte> out;
};

// One record of a batch that is read without being located first: its start, and a part further on.
struct DirectRead {
  Oid oid;
  std::span<std::byte> head;  // for the first bytes of the record
  std::uint64_t offset = 0;   // in the record, of what is for `out`; >= head.size()
  std::span<std::byte> out;
  // The answer. A record may be shorter than it was thought to be: then only so many bytes were
  // filled, and the rest of the buffers is undefined.
  std::optional<RecordRef> ref;  // as locate gives it
  std::size_t head_size = 0;
  std::size_t out_size = 0;

  // Sets the answer, of a record that is there or not.
  void answer(const std::optional<RecordRef>& located);
};

// A transaction as the database keeps it.
struct TransactionInfo {
  Tid tid;
  char status = ' ';  // ' ', or 'p': packed
  std::string user;
  std::string description;
  Bytes extension;  // a pickle of a dict, or empty
  struct Stored {
    Oid oid;
    std::uint64_t size = 0;  // bytes of the record; 0 for one that is undone to nothing or deleted
  };
  std::vector<Stored> stored;  // in the order of the database; an oid may be there twice
};

// Walks transactions one by one; see Storage::transactions.
class TransactionCursor {
 public:
  virtual ~TransactionCursor() = default;
  virtual std::optional<TransactionInfo> next() = 0;  // nothing at the end
};

struct Revision {
  Tid serial;
  std::uint64_t size = 0;  // 0: undone to nothing, or deleted
  std::string user;
  std::string description;
};

// What a transaction says of itself. Each at most 65535 bytes; text is UTF-8.
struct TransactionMeta {
  std::string user;
  std::string description;
  Bytes extension;
};

// Throws Invalid for what is longer.
void check_meta(const TransactionMeta& meta);

// A two-phase commit in progress. Destroying it before finish() aborts.
class StorageTransaction {
 public:
  virtual ~StorageTransaction() = default;

  // Stores a new revision of `oid`, made from revision `base` (kNoTid: a new object). The record is
  // the concatenation of `parts`, which may be freed on return. Throws Conflict, NoSpace.
  virtual void store(Oid oid, Tid base, std::span<const ByteView> parts) = 0;
  // Fails the transaction with Conflict unless `serial` is still the current revision of `oid`
  // (ZODB's checkCurrentSerialInTransaction: an object that was read to decide what to write).
  virtual void check_current(Oid oid, Tid serial) = 0;
  // First phase: after it the transaction can be finished whatever happens, short of a crash, and a
  // crash leaves all or nothing. Returns objects for which the storage resolved a conflict: what
  // it stored for them is not what was given.
  virtual std::vector<Oid> vote() = 0;
  // After vote(): a line of text to be kept until finish() returned. After a crash it tells, by
  // Storage::find_voted, whether the transaction is in the database. Empty if nothing can tell.
  virtual std::string voted_mark() const { return {}; }
  // Second phase: durable when it returns. The tid is that of every object stored.
  virtual Tid finish() = 0;
  // Gives up. Idempotent; not after finish().
  virtual void abort() noexcept = 0;

  void store(Oid oid, Tid base, ByteView record) { store(oid, base, std::span(&record, 1)); }
};

// Invalidation: transaction `tid` (of this process or another) stored `oids`.
using InvalidationFn = std::function<void(Tid tid, std::span<const Oid> oids)>;

// Ends a subscription when destroyed; a running callback has returned by then.
class Subscription {
 public:
  virtual ~Subscription() = default;
};

class Storage {
 public:
  virtual ~Storage() = default;

  // The storage as messages name it, and as a URL that opens it again.
  virtual const std::string& url() const = 0;
  virtual bool read_only() const = 0;
  // Where a record is, as messages name it: "/srv/Data.fs at 81920".
  virtual std::string place(const RecordRef&) const { return url(); }

  // --- reading

  virtual Tid last_tid() const = 0;
  // Learns of what others committed (a file's tail, a server's messages) and returns last_tid().
  virtual Tid sync() = 0;

  // For each oid its newest revision with serial <= at, or nothing: not yet created, or deleted by
  // then. `out` has the size of `oids`.
  virtual void locate(std::span<const Oid> oids, Tid at,
                      std::span<std::optional<RecordRef>> out) const = 0;
  // Reads all parts; on an error the content of the buffers is undefined.
  virtual void read(std::span<const ReadPart> parts) const = 0;
  // locate and read in one step, for records whose layout the caller knows by guess: where a file
  // holds them, one system call does both. The default takes the two steps.
  virtual void read_direct(std::span<DirectRead> reads, Tid at) const;
  // Whole records of at most `max_size` bytes each, as stored (see zodb/record.h for zlib).
  // Throws Corrupt for a larger one.
  virtual void load(std::span<const Oid> oids, Tid at, std::uint64_t max_size,
                    std::span<std::optional<Record>> out) const = 0;

  // A hint that the revisions of `oids` as of `at` will be read soon. Does not wait; the default
  // does nothing.
  virtual void prefetch(std::span<const Oid> oids, Tid at) const {
    static_cast<void>(oids), static_cast<void>(at);
  }

  // Transactions with first <= tid <= last, oldest first or (`backwards`) newest first.
  virtual std::unique_ptr<TransactionCursor> transactions(Tid first, Tid last,
                                                          bool backwards) const = 0;
  // Newest first, at most `limit`. Empty: never existed.
  virtual std::vector<Revision> history(Oid oid, std::size_t limit) const = 0;
  // Union of what transactions with after < tid <= upto stored, ascending.
  virtual std::vector<Oid> changed_oids(Tid after, Tid upto) const;

  [[nodiscard]] virtual std::unique_ptr<Subscription> subscribe(InvalidationFn callback) = 0;

  // Verifies what no load looks at: of a file its structure, from the first byte to the last.
  // `on_defect` gets a sentence with the place for each defect. A storage that is in another
  // process has nothing to say.
  virtual void check(const std::function<void(const std::string&)>& on_defect) const;

  // The tid of the transaction whose voted_mark() this is, if it is in the database. A storage that
  // chooses tids itself may give the one that it would have, if it is not; no other has that then.
  // May wait until it is decided. Nothing for a text that is no mark of this storage. Throws
  // NotFound if it cannot be told any more.
  virtual std::optional<Tid> find_voted(const std::string& mark) const;

  // --- writing (ReadOnly on a storage opened for reading)

  virtual Oid new_oid() = 0;
  // Waits for the transaction in progress in this process to end. Throws Invalid for too long a
  // text.
  virtual std::unique_ptr<StorageTransaction> begin(const TransactionMeta& meta) = 0;

  // --- for one object
  std::optional<RecordRef> locate(Oid oid, Tid at) const;
  std::optional<Record> load(Oid oid, Tid at, std::uint64_t max_size = kMaxLoad) const;
  void read(const RecordRef& ref, std::uint64_t offset, std::span<std::byte> out) const;

  // No object of the schema except a block's payload is larger (a BTree node of 1000 children has
  // 40 KB).
  static constexpr std::uint64_t kMaxLoad = 64u << 20;
};

enum class OpenMode {
  kRead,    // follows what others write
  kWrite,   // the one writer; Busy if there is another
  kCreate,  // as kWrite; makes the database if it is not there
};

// Opens the database that `url` names: file:///srv/Data.fs or a path for FileStorage.
// Starts no thread: a server opens its database, reports what is wrong with it, and then forks. A
// backend that needs threads starts them at the first call of subscribe() or sync().
// Throws NotFound, Busy, Corrupt, Unavailable, Unsupported (no backend for the scheme), Invalid.
std::unique_ptr<Storage> open_storage(const std::string& url, OpenMode mode);

}  // namespace zbig
