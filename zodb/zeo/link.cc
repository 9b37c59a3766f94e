// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/link.h"

#include <algorithm>
#include <random>
#include <utility>

#include "zodb/error_word.h"
#include "zodb/zeo/server_error.h"
#include "zodb/zeo/transaction_oids.h"

namespace zbig::zeo {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kFirstBackoff{100};
constexpr milliseconds kLongestBackoff{5000};
constexpr milliseconds kTick{2000};
// From connecting to ready. A server that is frozen takes connections and says nothing.
constexpr milliseconds kLongestStart{15000};
// Anybody may be silent for so long.
constexpr milliseconds kLeastSilence{10000};
// A server that stores what a transaction brought does nothing else meanwhile.
constexpr std::uint64_t kLeastBytesPerMillisecond = 5000;

// So that the clients of a server that comes back do not come all at once.
milliseconds jitter(milliseconds delay) {
  thread_local std::minstd_rand random{std::random_device{}()};
  return delay * std::uniform_int_distribution<int>(75, 125)(random) / 100;
}

std::string seconds(milliseconds time) {
  return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(time).count()) + " s";
}

}  // namespace

Link::Link(Options options, bool read_only, Feed& feed)
    : options_(std::move(options)),
      read_only_(read_only),
      name_("ZEO server " + options_.address.text()),
      feed_(feed) {}

Link::~Link() {
  if (loop_) loop_->stop();
  channel_.reset();
  ready_.reset();
}

// --- any thread

Link::Patience Link::patience() {
  const std::lock_guard lock(mutex_);
  return {Clock::now() + options_.wait_timeout, failures_};
}

void Link::start() {
  const std::lock_guard lock(mutex_);
  if (loop_) return;
  loop_ = std::make_unique<Loop>();
  loop_->post([this] { connect(); });
  loop_->post([this] { tick(); });
}

void Link::check_not_given_up() {
  if (!has_given_up_) return;
  const std::lock_guard lock(mutex_);
  throw_error(given_up_->code(), given_up_->what());
}

std::shared_ptr<Channel> Link::ready(const Patience& patience) {
  start();
  std::unique_lock lock(mutex_);
  // Something that will not get better by itself happened since whoever waits began.
  const auto hopeless = [&] {
    return failures_ > patience.failures && last_failure_->code() != ErrorCode::kUnavailable;
  };
  const auto usable = [&] { return ready_ && !ready_->ended(); };
  const bool answered = changed_.wait_until(lock, patience.deadline,
                                            [&] { return usable() || given_up_ || hopeless(); });
  if (given_up_) throw_error(given_up_->code(), given_up_->what());
  if (usable()) return ready_;
  if (answered) throw_error(last_failure_->code(), last_failure_->what());
  throw Unavailable((last_failure_ ? std::string(last_failure_->what()) : name_ + ": no answer") +
                    "; waited " + seconds(options_.wait_timeout));
}

void Link::check_patience(const Patience& patience) const {
  if (Clock::now() < patience.deadline) return;
  throw Unavailable(name_ + ": the connection breaks again and again; tried for " +
                    seconds(options_.wait_timeout));
}

std::shared_ptr<Channel> Link::ready_now() {
  const std::lock_guard lock(mutex_);
  return ready_;
}

Reply Link::await(std::future<Reply>& answer, const Patience& patience,
                  std::string_view method) const {
  if (answer.wait_until(patience.deadline) != std::future_status::ready) {
    throw Unavailable(name_ + ": no answer to " + std::string(method) + "; waited " +
                      seconds(options_.wait_timeout));
  }
  return answer.get();
}

void Link::check_alive(const Channel& channel, std::uint64_t bytes, Clock::time_point deadline,
                       std::string_view method) const {
  const milliseconds at_work(bytes / kLeastBytesPerMillisecond);
  if (Clock::now() > deadline + at_work) {
    throw Unavailable(name_ + ": no answer to " + std::string(method) +
                      " in half an hour; maybe another client left its commit open");
  }
  // It is asked for a sign of life after a while (Channel::keep_alive).
  if (channel.silence() > std::max(options_.wait_timeout, kLeastSilence) + at_work) {
    throw Unavailable(name_ + ": no answer to " + std::string(method) + ", and no sign of life");
  }
}

Reply Link::ask(const Patience& patience, std::string_view method, std::span<const Arg> args) {
  while (true) {
    const auto channel = ready(patience);
    auto answer = channel->call(method, args);
    if (Reply reply = await(answer, patience, method)) return reply;
    check_patience(patience);
  }
}

void Link::sync() {
  const Patience patience = this->patience();
  while (true) {
    const auto channel = ready(patience);
    auto reached = std::make_shared<std::promise<bool>>();
    auto future = reached->get_future();
    channel->call("ping", {}, [this, reached](const Reply& reply) {
      if (!reply) return reached->set_value(false);
      add_news({.tid = std::nullopt,
                .oids = std::nullopt,
                .complete = true,
                .then = [reached](bool alive) { reached->set_value(alive); }});
    });
    if (future.wait_until(patience.deadline) != std::future_status::ready) {
      throw Unavailable(name_ + ": no answer to ping; waited " + seconds(options_.wait_timeout));
    }
    if (future.get()) return;
    check_patience(patience);
  }
}

// --- the loop's thread: from connecting to ready

void Link::connect() {
  verified_ = false;
  try {
    channel_ = Channel::open(*loop_, options_, *this);
  } catch (const Error& error) {
    fail(error);
    return;
  }
  loop_->after(kLongestStart, [this, waited_for = std::weak_ptr(channel_)] {
    const auto channel = waited_for.lock();
    if (channel && channel == channel_ && !verified_) {
      channel->close(Unavailable("it was not ready in " + seconds(kLongestStart)));
    }
  });
}

void Link::tick() {
  if (channel_) channel_->keep_alive();
  loop_->after(kTick, [this] { tick(); });
}

// A call of this connection, whose end is not ours to care for. An Error in `then` ends it.
template <class Then>
void Link::call(std::string_view method, std::span<const Arg> args, Then then) {
  channel_->call(method, args, [this, channel = channel_.get(), then](const Reply& reply) {
    if (!reply || channel != channel_.get()) return;
    try {
      then(*reply);
    } catch (const Error& error) {
      channel_->close(error);
    }
  });
}

void Link::on_open(Channel&) {
  const Arg args[] = {Arg(options_.storage), Arg(read_only_)};
  call("register", args, [this](const Message& reply) {
    if (reply.is_exception()) throw_server_error(reply, "storage '" + options_.storage + "'");
    // A storage without transactions may say None.
    const auto tid = id_of(reply.args());
    if (!tid && !reply.args().is_none()) throw Corrupt("register gave no tid");
    registered_ = Tid{tid.value_or(0)};
    ask_missed(begun_ ? feed_.head() : kMaxTid);
  });
}

void Link::ask_missed(Tid since) {
  const Arg args[] = {Arg(since)};
  call("getInvalidations", args, [this, since](const Message& reply) { on_missed(reply, since); });
}

void Link::on_missed(const Message& reply, Tid since) {
  if (reply.is_exception() || reply.args().is_none()) {
    // What is newer than `since` is not known any more. What is newer than any tid is nothing, and
    // with that answer comes what the newest really is.
    if (since != kMaxTid) return ask_missed(kMaxTid);
    return check_history(registered_, std::nullopt);
  }
  const auto parts = sequence(reply.args());
  const auto tid = parts && parts->size() == 2 ? id_of((*parts)[0]) : std::nullopt;
  const auto changed = tid ? sequence((*parts)[1]) : std::nullopt;
  if (!changed) throw Corrupt("getInvalidations gave no tid and list");
  if (since == kMaxTid) return check_history(Tid{*tid}, std::nullopt);
  std::vector<Oid> oids;
  for (const Value item : *changed) {
    const auto oid = id_of(item);
    if (!oid) throw Corrupt("getInvalidations lists what is no oid");
    oids.push_back(Oid{*oid});
  }
  check_history(Tid{*tid}, oids);
}

// L2: is this the history that we know?
void Link::check_history(Tid tid, const std::optional<std::vector<Oid>>& oids) {
  const Tid head = feed_.head();
  if (!begun_ || head == kNoTid) return caught_up(tid, oids);
  const Arg args[] = {Arg(head), Arg(nullptr)};
  call("iterator_start", args, [this, tid, oids](const Message& started) {
    const auto iterator = started.is_exception() ? std::nullopt : started.args().integer();
    if (!iterator) {  // a storage that cannot tell
      if (tid < feed_.head()) return went_back("its last is " + tid.hex());
      return caught_up(tid, oids);
    }
    const Arg next[] = {Arg(*iterator)};
    call("iterator_next", next, [this, tid, oids, iterator = *iterator](const Message& reply) {
      if (!reply.args().is_none()) {
        const Arg done[] = {Arg(std::span(&iterator, 1))};
        channel_->tell("iterator_gc", done);
      }
      on_history(reply, tid, oids);
    });
  });
}

void Link::on_history(const Message& reply, Tid tid, const std::optional<std::vector<Oid>>& oids) {
  if (reply.is_exception()) throw_server_error(reply, "iterator_next");
  const Tid head = feed_.head();
  if (reply.args().is_none()) return went_back("its last is " + tid.hex());
  const auto parts = sequence(reply.args());
  const auto first = parts && parts->size() >= 2 ? id_of((*parts)[0]) : std::nullopt;
  if (!first) throw Corrupt("iterator_next gave no transaction");
  if (*first == head.value) return caught_up(tid, oids);
  // A pack may have removed it, and then packed what came next.
  if ((*parts)[1].text() != "p") return went_back("after it, it has " + Tid{*first}.hex());
  caught_up(tid, std::nullopt);
}

void Link::went_back(const std::string& how) {
  const Corrupt error(name_ + " has another history than before: transaction " +
                      feed_.head().hex() + " is not there any more, " + how +
                      "; nothing more is read from it until the database is opened again");
  {
    const std::lock_guard lock(mutex_);
    given_up_ = error;
    has_given_up_ = true;
    changed_.notify_all();
  }
  channel_->close(error);
}

void Link::caught_up(Tid tid, const std::optional<std::vector<Oid>>& oids) {
  if (!begun_) {
    begun_ = true;
    feed_.begin(tid);
  } else if (oids) {
    feed_.catch_up(tid, *oids);
  } else {
    feed_.catch_up(tid, std::nullopt);
  }
  // Told while we caught up, and part of what we caught up with.
  std::erase_if(news_, [&](const News& news) { return news.tid && *news.tid <= feed_.head(); });
  become_ready();
}

void Link::become_ready() {
  verified_ = true;
  backoff_ = milliseconds(0);
  do_news();
  const std::lock_guard lock(mutex_);
  ready_ = channel_;
  changed_.notify_all();
}

// --- the loop's thread: news, L1

void Link::on_server_call(Channel& channel, const Message& message) {
  if (&channel != channel_.get() || message.name() != "invalidateTransaction") return;
  const auto parts = sequence(message.args());
  const auto tid = parts && parts->size() == 2 ? id_of((*parts)[0]) : std::nullopt;
  const auto changed = tid ? sequence((*parts)[1]) : std::nullopt;
  if (!changed) throw Corrupt("invalidateTransaction without tid and list");
  News news;
  news.tid = Tid{*tid};
  news.oids.emplace();
  for (const Value item : *changed) {
    const auto oid = id_of(item);
    if (!oid) throw Corrupt("invalidateTransaction lists what is no oid");
    news.oids->push_back(Oid{*oid});
  }
  // Objects that were deleted or restored are not in the list.
  news.complete = !changed->empty();
  add_news(std::move(news));
}

void Link::add_own_commit(Tid tid, std::vector<Oid> oids, std::function<void()> then) {
  add_news({.tid = tid,
            .oids = std::move(oids),
            .complete = true,
            .then = [then = std::move(then)](bool) { then(); }});
}

void Link::add_news(News news) {
  if (!channel_) {  // it ended: we are called with the last of its replies
    if (news.then) news.then(false);
    return;
  }
  news_.push_back(std::move(news));
  do_news();
}

void Link::do_news() {
  while (verified_ && !news_.empty() && news_.front().complete) {
    const News news = std::move(news_.front());
    news_.pop_front();
    if (news.tid && news.oids) feed_.commit(*news.tid, *news.oids);
    if (news.tid && !news.oids) feed_.catch_up(*news.tid, std::nullopt);
    if (news.then) news.then(true);
  }
  if (!verified_ || news_.empty() || looking_up_) return;
  looking_up_ = true;
  ask_oids_of(*channel_, *news_.front().tid, [this](std::optional<std::vector<Oid>> oids) {
    looking_up_ = false;
    news_.front().oids = std::move(oids);
    news_.front().complete = true;
    do_news();
  });
}

// --- the loop's thread: the end, and again

void Link::on_end(Channel& channel, const Error& why) {
  if (&channel != channel_.get()) return;
  fail(why);
}

void Link::fail(const Error& why) {
  const auto channel = std::move(channel_);  // until we return
  channel_.reset();
  verified_ = false;
  looking_up_ = false;
  Error failure = why;
  failure.add_context(name_);
  bool again = false;
  {
    const std::lock_guard lock(mutex_);
    ready_.reset();
    ++failures_;
    last_failure_ = failure;
    again = !given_up_;
    changed_.notify_all();
  }
  for (const News& news : std::exchange(news_, {})) {
    if (news.then) news.then(false);
  }
  if (!again) return;
  loop_->after(jitter(backoff_), [this] { connect(); });
  backoff_ = std::clamp(2 * backoff_, kFirstBackoff, kLongestBackoff);
}

}  // namespace zbig::zeo
