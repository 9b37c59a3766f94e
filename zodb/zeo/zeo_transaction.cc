// SPDX-License-Identifier: BSD-3-Clause
#include <utility>

#include "zodb/error.h"
#include "zodb/zeo/fingerprint.h"
#include "zodb/zeo/outcome.h"
#include "zodb/zeo/server_error.h"
#include "zodb/zeo/zeo_storage.h"

// ZeoStorage's transaction: two-phase commit over one connection.
//
// Stores are sent and not answered; the server keeps them in a file and looks at them at vote,
// which waits for other clients' commits. Up to tpc_finish the transaction ends with its
// connection: whatever breaks, it is not committed. A tpc_finish without an answer has to be found
// out about (zodb/zeo/outcome.h); nothing else is ever in doubt.

namespace zbig::zeo {

namespace {

// Of records on their way to the server, in memory.
constexpr std::size_t kMostWaiting = 8u << 20;
// A commit of terabytes may take long; a transaction that was forgotten must not stop us for ever.
constexpr std::chrono::minutes kLongestTransaction{30};

}  // namespace

class ZeoStorage::Transaction : public StorageTransaction {
 public:
  // The gate is ours; `storage` outlives us.
  Transaction(ZeoStorage& storage, std::shared_ptr<Channel> channel, std::int64_t txid,
              const TransactionMeta& meta)
      : storage_(storage), channel_(std::move(channel)), txid_(txid), meta_(meta) {
    const Arg extension = meta.extension.empty() ? Arg::empty_map() : Arg(ByteView(meta.extension));
    const Arg args[] = {Arg(txid_),
                        Arg(as_bytes(meta.user)),
                        Arg(as_bytes(meta.description)),
                        extension,
                        Arg(nullptr),
                        Arg(" ")};
    channel_->tell("tpc_begin", args);
  }
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

  void expect(State state, const char* call) const;
  void end();
  [[noreturn]] void lost(const std::string& why);
  std::vector<Oid> take_vote(Value answer);
  Tid find_out(const std::string& why);

  ZeoStorage& storage_;
  const std::shared_ptr<Channel> channel_;
  const std::int64_t txid_;
  const TransactionMeta meta_;
  Fingerprint fingerprint_;
  State state_ = State::kOpen;
};

std::unique_ptr<StorageTransaction> ZeoStorage::begin(const TransactionMeta& meta) {
  check_writable();
  check_meta(meta);
  if (!gate_.try_acquire_for(kLongestTransaction)) {
    throw Busy(url_ + ": another transaction of this process is still in progress");
  }
  try {
    auto channel = link_.ready(link_.patience());
    return std::make_unique<Transaction>(*this, std::move(channel), ++last_txid_, meta);
  } catch (...) {
    gate_.release();
    throw;
  }
}

void ZeoStorage::Transaction::expect(State state, const char* call) const {
  if (state_ == state) return;
  throw Invalid(std::string(call) + " on a transaction of " + storage_.url_ +
                (state_ == State::kEnded ? " that has ended" : " that has not come to that"));
}

void ZeoStorage::Transaction::end() {
  state_ = State::kEnded;
  storage_.gate_.release();
}

void ZeoStorage::Transaction::lost(const std::string& why) {
  // So that the server forgets the transaction, however far it is.
  channel_->close(Unavailable("a commit was given up"));
  if (state_ != State::kEnded) end();
  throw Unavailable(storage_.link_.name() + ": " + why + "; nothing was committed");
}

void ZeoStorage::Transaction::store(Oid oid, Tid base, std::span<const ByteView> parts) {
  expect(State::kOpen, "store");
  if (base == kNoTid && oid != kRootOid && !storage_.oids_.gave(*channel_, oid)) {
    lost("the connection broke and was made again after object " + oid.brief() +
         " had got its number");
  }
  if (!channel_->wait_for_room(kMostWaiting, storage_.wait_timeout_)) {
    lost("the connection broke during a commit");
  }
  fingerprint_.add_record(oid, base, parts);
  const Arg args[] = {Arg(oid), Arg(base), Arg(parts), Arg(txid_)};
  channel_->tell("storea", args);
}

void ZeoStorage::Transaction::check_current(Oid oid, Tid serial) {
  expect(State::kOpen, "check_current");
  const Arg args[] = {Arg(oid), Arg(serial), Arg(txid_)};
  channel_->tell("checkCurrentSerialInTransaction", args);
}

// Oids of resolved conflicts, or maps of conflicts that we are to resolve ourselves.
std::vector<Oid> ZeoStorage::Transaction::take_vote(Value answer) {
  if (answer.is_none()) return {};
  const auto items = sequence(answer);
  if (!items) throw Corrupt(storage_.link_.name() + ": vote gave no list");
  std::vector<Oid> resolved;
  for (const Value item : *items) {
    if (item.kind() == Kind::kDict) throw_conflict(item, storage_.url_);
    const auto oid = id_of(item);
    if (!oid) throw Corrupt(storage_.link_.name() + ": vote gave what is no oid");
    resolved.push_back(Oid{*oid});
    fingerprint_.add_resolved(Oid{*oid});
  }
  return resolved;
}

std::vector<Oid> ZeoStorage::Transaction::vote() {
  expect(State::kOpen, "vote");
  const Arg args[] = {Arg(txid_)};
  Reply reply;
  try {
    auto answer = channel_->call("vote", args);
    reply = storage_.link_.await_long(*channel_, answer, fingerprint_.bytes(), "vote");
  } catch (const Unavailable& error) {
    lost(error.what());
  }
  if (!reply) lost("the connection broke during a commit");
  if (reply->is_exception()) {
    end();  // the server has forgotten it
    if (is_key_error(*reply)) throw_conflict(*reply, storage_.url_);
    throw_server_error(*reply, storage_.url_);
  }
  try {
    auto resolved = take_vote(reply->args());
    state_ = State::kVoted;
    return resolved;
  } catch (...) {
    abort();
    throw;
  }
}

std::string ZeoStorage::Transaction::voted_mark() const {
  const auto mark = fingerprint_.mark(meta_.user, meta_.description);
  return mark ? mark->text() : "";
}

Tid ZeoStorage::Transaction::finish() {
  expect(State::kVoted, "finish");
  struct Answer {
    std::optional<Tid> tid;
    std::string problem;
    bool nothing = false;  // the server knows of no such transaction
  };
  auto promise = std::make_shared<std::promise<Answer>>();
  auto future = promise->get_future();
  const Arg args[] = {Arg(txid_)};
  channel_->call("tpc_finish", args,
                 [promise, &link = storage_.link_, oids = fingerprint_.oids()](const Reply& reply) {
                   if (!reply) return promise->set_value({{}, "the connection broke"});
                   if (reply->is_exception()) return promise->set_value({{}, "the server failed"});
                   if (reply->args().is_none()) return promise->set_value({{}, {}, true});
                   const auto tid = id_of(reply->args());
                   if (!tid) return promise->set_value({{}, "the server gave no tid"});
                   link.add_own_commit(Tid{*tid}, oids, [promise, tid] {
                     promise->set_value({Tid{*tid}, {}});
                   });
                 });
  Answer answer;
  try {
    answer = storage_.link_.await_long(*channel_, future, fingerprint_.bytes(), "tpc_finish");
  } catch (const Unavailable& error) {
    answer.problem = error.what();
  }
  if (answer.nothing) lost("the server has forgotten the transaction");
  if (answer.tid) {
    end();
    return *answer.tid;
  }
  return find_out(answer.problem);
}

Tid ZeoStorage::Transaction::find_out(const std::string& why) {
  channel_->close(Unavailable("tpc_finish was not answered: " + why));
  std::optional<Tid> tid;
  try {
    const auto mark = fingerprint_.mark(meta_.user, meta_.description);
    if (!mark) throw NotFound("it stored nothing but what the server merged");
    tid = find_transaction(storage_.link_, *mark, fingerprint_.bytes());
  } catch (const Error& error) {
    end();
    throw Unavailable(storage_.link_.name() + ": " + why +
                      " at the end of a commit, and whether it was committed "
                      "cannot be found out now: " +
                      error.what() + "; commit again: what is in the database is not stored twice");
  }
  if (!tid) lost(why + " at the end of a commit");
  end();
  return *tid;
}

void ZeoStorage::Transaction::abort() noexcept {
  if (state_ == State::kEnded) return;
  end();
  try {
    const Arg args[] = {Arg(txid_)};
    channel_->tell("tpc_abort", args);
  } catch (const std::exception& error) {
    channel_->close(Failed(std::string("tpc_abort: ") + error.what()));
  }
}

std::optional<Tid> ZeoStorage::find_voted(const std::string& mark) const {
  const auto parsed = Fingerprint::Mark::parse(mark);
  return parsed ? find_transaction(link_, *parsed, 0) : std::nullopt;
}

}  // namespace zbig::zeo
