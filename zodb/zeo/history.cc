// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/history.h"

#include <algorithm>
#include <deque>

#include "zodb/zeo/server_error.h"

namespace zbig::zeo {
namespace {

// Of a large transaction so many records are asked for at once. What is asked for behind the last
// one is an error in the server's log, so of a small one they are asked for one by one.
constexpr std::size_t kMostAhead = 16;

// Backwards, so many transactions are read forwards and then given back to front.
constexpr std::size_t kMostInStep = 64;

std::string text_of(Value value) { return std::string(value.text().value_or("")); }

}  // namespace

TransactionWalk::~TransactionWalk() {
  if (!channel_) return;
  const Arg args[] = {Arg(std::span<const std::int64_t>(&iterator_, 1))};
  channel_->tell("iterator_gc", args);
}

void TransactionWalk::corrupt(std::string_view method) const {
  throw Corrupt(link_.name() + ": " + std::string(method) + " gave what it should not");
}

std::int64_t TransactionWalk::number(std::string_view method, Value answer) const {
  const auto number = answer.integer();
  if (!number) corrupt(method);
  return *number;
}

std::optional<Value> TransactionWalk::call(std::string_view method, std::span<const Arg> args) {
  auto answer = channel_->call(method, args);
  reply_ = link_.await(answer, link_.patience(), method);
  if (!reply_) {
    channel_.reset();
    return std::nullopt;
  }
  if (reply_->is_exception())
    throw_server_error(*reply_, link_.name() + ": " + std::string(method));
  return reply_->args();
}

// Makes the iterator, if there is none on this connection.
bool TransactionWalk::open(Tid first) {
  if (channel_ && !channel_->ended()) return true;
  channel_ = link_.ready(link_.patience());
  const Arg args[] = {Arg(first), Arg(last_)};
  const auto answer = call("iterator_start", args);
  if (answer) iterator_ = number("iterator_start", *answer);
  return answer.has_value();
}

std::optional<std::optional<TransactionInfo>> TransactionWalk::try_next(Tid first) {
  if (!open(first)) return std::nullopt;
  const Arg args[] = {Arg(iterator_)};
  const auto answer = call("iterator_next", args);
  if (!answer) return std::nullopt;
  if (answer->is_none()) {
    channel_.reset();  // the server has forgotten the iterator
    return std::optional<TransactionInfo>();
  }
  const auto parts = sequence(*answer);
  const auto tid = parts && parts->size() >= 5 ? id_of((*parts)[0]) : std::nullopt;
  if (!tid || *tid < first.value || *tid > last_.value) corrupt("iterator_next");
  TransactionInfo info;
  info.tid = Tid{*tid};
  info.status = (*parts)[1].text() == "p" ? 'p' : ' ';
  info.user = text_of((*parts)[2]);
  info.description = text_of((*parts)[3]);
  return std::optional(std::move(info));
}

std::optional<TransactionInfo> TransactionWalk::next() {
  if (first_ > last_) return std::nullopt;
  for (const auto patience = link_.patience();; link_.check_patience(patience)) {
    auto found = try_next(first_);
    if (!found) continue;
    first_ = *found ? Tid{(*found)->tid.value + 1} : Tid{last_.value + 1};
    if (*found) current_ = (*found)->tid;
    return *std::move(found);
  }
}

// False: there are no more.
bool TransactionWalk::take_record(const Reply& reply, std::size_t skip, std::size_t& seen,
                                  const OnRecord& on_record) {
  if (reply->is_exception()) throw_server_error(*reply, link_.name() + ": iterator_record_next");
  if (reply->args().is_none()) return false;
  const auto parts = sequence(reply->args());
  const auto oid = parts && parts->size() >= 3 ? id_of((*parts)[0]) : std::nullopt;
  if (!oid || (!(*parts)[2].bytes() && !(*parts)[2].is_none())) corrupt("iterator_record_next");
  if (seen++ >= skip) on_record(Oid{*oid}, (*parts)[2].bytes());
  return true;
}

// False: the connection broke.
bool TransactionWalk::try_records(std::size_t skip, std::size_t& seen, const OnRecord& on_record) {
  if (!channel_ || channel_->ended()) {
    const auto again = try_next(current_);
    if (!again) return false;
    if (!*again || (*again)->tid != current_) {
      throw NotFound(link_.name() + ": transaction " + current_.hex() + " was packed away");
    }
  }
  const Arg which[] = {Arg(iterator_), Arg(current_)};
  const auto answer = call("iterator_record_start", which);
  if (!answer) return false;
  const Arg records[] = {Arg(number("iterator_record_start", *answer))};
  std::deque<std::future<Reply>> ahead;
  while (true) {
    const std::size_t wanted = std::clamp<std::size_t>(seen / kMostAhead, 1, kMostAhead);
    while (ahead.size() < wanted) {
      ahead.push_back(channel_->call("iterator_record_next", records));
    }
    const Reply reply = link_.await(ahead.front(), link_.patience(), "iterator_record_next");
    ahead.pop_front();
    if (!reply) {
      channel_.reset();
      return false;
    }
    if (!take_record(reply, skip, seen, on_record)) return true;
  }
}

void TransactionWalk::records(const OnRecord& on_record) {
  std::size_t done = 0;
  std::size_t seen = 0;
  auto patience = link_.patience();
  while (!try_records(done, seen, on_record)) {
    if (seen > done) patience = link_.patience();
    link_.check_patience(patience);
    done = std::max(done, seen);
    seen = 0;
  }
}

namespace {

void add_records(TransactionWalk& walk, TransactionInfo& info) {
  walk.records([&](Oid oid, std::optional<ByteView> data) {
    info.stored.push_back({oid, data ? data->size() : 0});
  });
}

class ForwardsCursor : public TransactionCursor {
 public:
  ForwardsCursor(Link& link, Tid first, Tid last) : walk_(link, first, last) {}
  std::optional<TransactionInfo> next() override {
    auto info = walk_.next();
    if (info) add_records(walk_, *info);
    return info;
  }

 private:
  TransactionWalk walk_;
};

class BackwardsCursor : public TransactionCursor {
 public:
  BackwardsCursor(Link& link, Tid first, Tid last) : link_(link) {
    TransactionWalk walk(link, first, last);
    while (const auto info = walk.next()) tids_.push_back(info->tid);
  }

  std::optional<TransactionInfo> next() override {
    if (ready_.empty()) step();
    if (ready_.empty()) return std::nullopt;
    TransactionInfo info = std::move(ready_.back());
    ready_.pop_back();
    return info;
  }

 private:
  // More of them each time: whoever wants the newest three does not wait for more.
  void step() {
    if (tids_.empty()) return;
    const std::size_t count = std::min(tids_.size(), step_);
    TransactionWalk walk(link_, tids_[tids_.size() - count], tids_.back());
    while (auto info = walk.next()) {
      add_records(walk, *info);
      ready_.push_back(std::move(*info));
    }
    tids_.resize(tids_.size() - count);
    step_ = std::min(2 * step_, kMostInStep);
  }

  Link& link_;
  std::vector<Tid> tids_;  // of those not read, ascending
  std::vector<TransactionInfo> ready_;
  std::size_t step_ = 1;
};

}  // namespace

std::unique_ptr<TransactionCursor> transactions(Link& link, Tid first, Tid last, bool backwards) {
  if (backwards) return std::make_unique<BackwardsCursor>(link, first, last);
  return std::make_unique<ForwardsCursor>(link, first, last);
}

}  // namespace zbig::zeo
