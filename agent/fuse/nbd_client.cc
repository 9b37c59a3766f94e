// SPDX-License-Identifier: BSD-3-Clause
#include "agent/fuse/nbd_client.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "agent/fuse/message.h"
#include "zodb/error.h"

namespace zbig::fuse {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A local server that was restarted is back within some tens of milliseconds.
constexpr milliseconds kFirstBackoff{5};
constexpr milliseconds kLongestBackoff{1000};
constexpr seconds kHandshakeDeadline{10};
constexpr seconds kReopenDeadline{10};

}  // namespace

// Registered in the loop in place of its link, so that what happened to the link is seen to after
// each of its turns.
struct NbdClient::Slot : EventSource {
  explicit Slot(NbdClient& owner) : client(owner) { client.loop_.add(*this); }
  ~Slot() override { client.loop_.remove(*this); }

  int fd() const override { return link ? link->fd() : -1; }
  short events() const override { return link ? link->events() : static_cast<short>(0); }
  void on_ready(short revents) override {
    link->on_ready(revents);
    client.look_at(*this);
  }
  // Without a link: when to make one. While it connects: when that took too long. Of a broken one:
  // at once, to lose it.
  std::optional<Clock::time_point> deadline() const override {
    return ready() ? std::nullopt : std::optional(due);
  }
  void on_deadline() override {
    if (!link) return client.open(*this);
    if (link->state() == NbdLink::State::kConnecting) {
      link->break_off("the server does not answer the handshake");
    }
    client.look_at(*this);
  }
  bool ready() const { return link && link->state() == NbdLink::State::kReady; }

  NbdClient& client;
  std::unique_ptr<NbdLink> link;
  bool seen_ready = false;
  milliseconds backoff = kFirstBackoff;
  Clock::time_point due = Clock::now();
};

NbdClient::NbdClient(EventLoop& loop, Settings settings)
    : loop_(loop), settings_(std::move(settings)) {
  loop_.add(*this);
}

NbdClient::~NbdClient() { loop_.remove(*this); }

ExportInfo NbdClient::connect(seconds patience) {
  const Clock::time_point deadline = Clock::now() + patience;
  slots_.push_back(std::make_unique<Slot>(*this));
  Slot& slot = *slots_.front();
  while (!slot.ready()) {
    loop_.turn();
    if (slot.ready()) break;
    if (Clock::now() > deadline || (!slot.link && !last_error_.empty())) {
      throw Unavailable("connect to " + settings_.uri + ": " + last_error_);
    }
  }
  const ExportInfo info = slot.link->info();
  if (info.size == 0) throw Invalid("the export " + settings_.uri + " has no bytes");
  if (info.read_only && !settings_.read_only) {
    throw ReadOnly("the export " + settings_.uri + " is read-only (--read-only would do)");
  }
  size_ = info.size;
  multi_conn_ = info.can_multi_conn;
  while (slots_.size() < wanted_links()) slots_.push_back(std::make_unique<Slot>(*this));
  return info;
}

unsigned NbdClient::wanted_links() const { return multi_conn_ ? settings_.connections : 1; }

void NbdClient::open(Slot& slot) {
  slot.due = Clock::now() + kHandshakeDeadline;
  slot.seen_ready = false;
  slot.link = std::make_unique<NbdLink>(settings_.uri);
  look_at(slot);
}

void NbdClient::look_at(Slot& slot) {
  if (slot.ready() && !slot.seen_ready && !refuse(*slot.link)) {
    slot.seen_ready = true;
    slot.backoff = kFirstBackoff;
    if (down_since_ && !reopened_ && size_ != 0) say("the server is back");
    down_since_.reset();
    gave_up_ = false;
    if (reopened_) std::exchange(reopened_, nullptr)(slot.link->info().size);
  }
  if (slot.link->state() == NbdLink::State::kBroken) lose(slot);
  dispatch();
}

bool NbdClient::refuse(NbdLink& link) {
  if (size_ == 0) return false;  // the first one is connect()'s to judge
  const ExportInfo& info = link.info();
  std::string why;
  if (info.size < size_) {
    why = "the server has " + std::to_string(info.size) + " bytes where the device has " +
          std::to_string(size_);
  } else if (info.read_only && !settings_.read_only) {
    why = "the export is read-only";
  } else {
    return false;
  }
  link.break_off(why);
  return true;
}

void NbdClient::lose(Slot& slot) {
  const std::string& error = slot.link->error();
  const bool expected = size_ == 0 || reopened_ != nullptr;  // whoever asked is told
  if (!expected && (error != last_error_ || slot.seen_ready)) say("lost the server: " + error);
  last_error_ = error;
  if (slot.seen_ready) ++statistics_.links_lost;
  // In front of what has not been sent yet.
  auto unfinished = slot.link->take_unfinished();
  for (auto request = unfinished.rbegin(); request != unfinished.rend(); ++request) {
    queue_.push_front(std::move(*request));
  }
  slot.link.reset();
  slot.due = Clock::now() + slot.backoff;
  slot.backoff = std::min(slot.backoff * 2, kLongestBackoff);
  if (links_ready() == 0 && !down_since_) down_since_ = Clock::now();
}

void NbdClient::submit(std::unique_ptr<NbdRequest> request) {
  queue_.push_back(std::move(request));
  dispatch();
}

void NbdClient::dispatch() {
  while (!queue_.empty()) {
    Slot* best = nullptr;
    for (const auto& slot : slots_) {
      if (!slot->ready() || !slot->seen_ready) continue;
      if (best == nullptr || slot->link->in_flight() < best->link->in_flight()) best = slot.get();
    }
    if (best == nullptr) break;
    std::unique_ptr<NbdRequest> request = std::move(queue_.front());
    queue_.pop_front();
    ++statistics_.requests;
    if (request->kind == NbdRequest::Kind::kRead) statistics_.bytes_read += request->length;
    if (request->kind == NbdRequest::Kind::kWrite) statistics_.bytes_written += request->length;
    best->link->submit(std::move(request));
    // We may have been called by that very link, so it is lost a turn later.
    if (!best->ready()) best->due = Clock::now();
  }
}

void NbdClient::reopen(std::function<void(std::optional<std::uint64_t>)> done) {
  reopened_ = std::move(done);
  reopen_deadline_ = Clock::now() + kReopenDeadline;
  for (const auto& slot : slots_) {
    if (slot->link) slot->link->break_off("to see the new size");
    if (slot->link) lose(*slot);
    slot->due = Clock::now();
  }
}

std::optional<Clock::time_point> NbdClient::deadline() const {
  std::optional<Clock::time_point> due;
  if (reopened_) due = reopen_deadline_;
  if (gave_up_ && !queue_.empty()) return down_since_;  // long past: at once
  if (down_since_ && !gave_up_ && settings_.dead_timeout.count() != 0) {
    const Clock::time_point end = *down_since_ + settings_.dead_timeout;
    due = due ? std::min(*due, end) : end;
  }
  return due;
}

void NbdClient::on_deadline() {
  const Clock::time_point now = Clock::now();
  if (reopened_ && reopen_deadline_ <= now) std::exchange(reopened_, nullptr)({});
  if (!down_since_ || settings_.dead_timeout.count() == 0) return;
  if (!gave_up_ && *down_since_ + settings_.dead_timeout <= now) {
    say("no server for " + std::to_string(settings_.dead_timeout.count()) +
        " s: requests fail until it is back");
    gave_up_ = true;
  }
  if (gave_up_) give_up();
}

void NbdClient::give_up() {
  // What the callbacks submit meanwhile fails next turn.
  std::deque<std::unique_ptr<NbdRequest>> failed;
  failed.swap(queue_);
  for (const auto& request : failed) {
    ++statistics_.failed;
    request->done(EIO);
  }
}

std::size_t NbdClient::in_flight() const {
  std::size_t sum = 0;
  for (const auto& slot : slots_) sum += slot->link ? slot->link->in_flight() : 0;
  return sum;
}

std::size_t NbdClient::links_ready() const {
  return static_cast<std::size_t>(
      std::count_if(slots_.begin(), slots_.end(), [](const auto& slot) { return slot->ready(); }));
}

void NbdClient::close(seconds patience) {
  const Clock::time_point deadline = Clock::now() + patience;
  bool flushed = settings_.read_only || links_ready() == 0 || slots_.empty() ||
                 !slots_.front()->ready() || !slots_.front()->link->info().can_flush;
  if (!flushed) {
    auto flush = std::make_unique<NbdRequest>();
    flush->done = [&flushed](int) { flushed = true; };
    submit(std::move(flush));
  }
  const Alarm alarm(loop_, deadline);  // a silent server must not keep us
  while (!flushed && Clock::now() < deadline) loop_.turn();
  for (const auto& slot : slots_) {
    if (slot->ready() && slot->link->in_flight() == 0) slot->link->disconnect();
  }
  slots_.clear();
}

}  // namespace zbig::fuse
