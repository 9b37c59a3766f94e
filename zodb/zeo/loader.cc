// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/loader.h"

#include <algorithm>
#include <deque>

#include "zodb/zeo/server_error.h"

namespace zbig::zeo {
namespace {

Tid before_of(Tid at) { return at >= kMaxTid ? kMaxTid : Tid{at.value + 1}; }

}  // namespace

std::size_t Loader::window() const {
  return std::clamp<std::size_t>(kBytesUnderWay / usual_size_, 4, kMostUnderWay);
}

std::shared_future<Loader::Answer> Loader::start(Channel& channel, Oid oid, Tid before) {
  const Key key{oid, before};
  std::shared_ptr<Flight> flight;
  {
    const std::lock_guard lock(mutex_);
    auto& known = flights_[key];
    if (known) return known->answer;
    known = flight = std::make_shared<Flight>();
  }
  const auto answer = flight->answer;
  const Arg args[] = {Arg(oid), Arg(before)};
  channel.call("loadBefore", args, [this, key, flight](const Reply& reply) {
    std::exception_ptr failure;
    Answer answer;
    try {
      answer = take_in(reply, key.first, key.second);
    } catch (...) {
      failure = std::current_exception();
    }
    // Whoever does not find the flight any more finds the record in the cache.
    {
      const std::lock_guard lock(mutex_);
      flights_.erase(key);
    }
    if (failure) {
      flight->promise.set_exception(failure);
    } else {
      flight->promise.set_value(std::move(answer));
    }
  });
  return answer;
}

Loader::Answer Loader::take_in(const Reply& reply, Oid oid, Tid before) {
  if (!reply) return {.lost = true, .loaded = nullptr};
  if (is_key_error(*reply)) return {};
  const std::string where = link_.name() + ": object " + oid.brief();
  if (reply->is_exception()) throw_server_error(*reply, where);
  if (reply->args().is_none()) return {};
  const auto parts = sequence(reply->args());
  if (!parts || parts->size() != 3) throw Corrupt(where + ": loadBefore gave no record");
  if ((*parts)[0].is_none()) return {};  // undone to nothing
  const auto data = (*parts)[0].bytes();
  const auto serial = id_of((*parts)[1]);
  const auto next = id_of((*parts)[2]);
  if (!data || !serial || (!next && !(*parts)[2].is_none())) {
    throw Corrupt(where + ": loadBefore gave no record");
  }
  if (*serial >= before.value || (next && (*next <= *serial || *next < before.value))) {
    throw Corrupt(where + ": loadBefore " + before.hex() + " gave the revision of " +
                  Tid{*serial}.hex());
  }
  auto loaded = std::make_shared<const Loaded>(Loaded{oid, Tid{*serial}, reply->frame(), *data});
  cache_.add(loaded, next ? std::optional(Tid{*next}) : std::nullopt);
  usual_size_ = (7 * usual_size_ + data->size()) / 8 + 1;
  return {.lost = false, .loaded = std::move(loaded)};
}

Loader::Answer Loader::wait(std::shared_future<Answer>& answer, Oid oid) const {
  if (answer.wait_until(link_.patience().deadline) != std::future_status::ready) {
    throw Unavailable(link_.name() + ": no answer to loadBefore of object " + oid.brief());
  }
  return answer.get();
}

bool Loader::is_lost(const std::shared_future<Answer>& answer) {
  if (answer.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return false;
  try {
    return answer.get().lost;
  } catch (const Error&) {
    return false;  // it is thrown when its turn comes
  }
}

void Loader::load(std::span<const Wanted> wanted, const Visit& visit) {
  link_.check_not_given_up();
  struct Waiting {
    std::size_t index;
    Link::Patience patience;
    std::shared_future<Answer> answer;
  };
  const Tid head = feed_.head();
  std::deque<Waiting> waiting;
  std::shared_ptr<Channel> channel;
  const auto ask = [&](std::size_t index, const Link::Patience& patience) {
    const auto& [oid, at] = wanted[index];
    if (!channel || channel->ended()) channel = link_.ready(patience);
    return start(*channel, oid, before_of(at));
  };
  for (std::size_t next = 0; next < wanted.size() || !waiting.empty();) {
    if (next < wanted.size() && waiting.size() < window()) {
      const std::size_t index = next++;
      if (const auto cached = cache_.find(wanted[index].oid, wanted[index].at, head)) {
        visit(index, cached);
      } else {
        const auto patience = link_.patience();
        waiting.push_back({index, patience, ask(index, patience)});
      }
      continue;
    }
    Waiting first = std::move(waiting.front());
    waiting.pop_front();
    const Answer answer = wait(first.answer, wanted[first.index].oid);
    if (!answer.lost) {
      visit(first.index, answer.loaded);
      continue;
    }
    // With the connection went the others: all are asked for again before one is waited for.
    link_.check_patience(first.patience);
    first.answer = ask(first.index, first.patience);
    for (Waiting& other : waiting) {
      if (is_lost(other.answer)) other.answer = ask(other.index, other.patience);
    }
    waiting.push_front(std::move(first));
  }
}

void Loader::prefetch(std::span<const Oid> oids, Tid at) {
  const Tid head = feed_.head();
  std::shared_ptr<Channel> channel;
  for (const Oid oid : oids) {
    {
      const std::lock_guard lock(mutex_);
      if (flights_.size() >= window()) return;
    }
    if (cache_.find(oid, at, head)) continue;
    if (!channel) channel = link_.ready_now();
    if (!channel) return;
    start(*channel, oid, before_of(at));
  }
}

}  // namespace zbig::zeo
