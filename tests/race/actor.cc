// SPDX-License-Identifier: BSD-3-Clause
#include "tests/race/actor.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

namespace zbig::race {
namespace {

using std::chrono::microseconds;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kSettleDeadline{60};
constexpr unsigned kWayCount = std::size(kWays);

std::uint64_t key_of(const Place& place) { return place.offset << 8 | place.volume; }

}  // namespace

// --- Actor

Actor::Actor(const Arena& arena, Names devices, bool writable, unsigned seed)
    : arena_(arena), devices_(std::move(devices)), random_(seed) {
  if (devices_.empty()) return;
  const auto known = arena_.agent->devices();
  for (const std::string& name : devices_) {
    const auto device = known.find(name);
    if (device == known.end()) throw std::runtime_error("no device " + name);
    files_.push_back(std::make_unique<DeviceFile>(device->second.node, arena_.size, writable));
    for (unsigned group = 0; group < arena_.layout.groups; ++group) {
      for (const Place& place : arena_.layout.places(group)) files_.back()->lock(place.offset);
    }
  }
}

std::optional<std::string> Actor::state_of(const std::map<std::string, DeviceState>& known) const {
  std::optional<std::string> tid;
  for (const std::string& name : devices_) {
    const DeviceState& device = known.at(name);
    if (!device.settled || (tid && *tid != device.tid)) return std::nullopt;
    tid = device.tid;
  }
  return tid;
}

std::string Actor::where(const Place& place, const std::string& how) const {
  return "device " + devices_[place.volume] + " at " + std::to_string(place.offset) + " by " + how;
}

Word Actor::read_state(unsigned group, const std::string& tid, std::uint64_t floor,
                       std::optional<Way> way) {
  std::optional<Word> first;
  std::string first_where;
  for (const Place& place : arena_.layout.places(group)) {
    const Way by = way ? *way : kWays[below(kWayCount)];
    const Word word = read(place, by);
    const std::string at = where(place, name_of(by));
    if (!first) {
      first = word;
      first_where = at;
    } else if (word != *first) {
      throw Violation("torn at " + tid + ": " + first_where + " shows " + first->text() + ", " +
                      at + " shows " + word.text());
    }
  }
  if (first->counter() < floor) {
    throw Violation("stale at " + tid + ": " + first_where + " shows " + first->text() +
                    ", after the commit of " + std::to_string(floor) + " was acknowledged");
  }
  return *first;
}

// --- Writer

Writer::Writer(const Arena& arena, Names devices, bool follows, unsigned number, unsigned seed)
    : Actor(arena, std::move(devices), true, seed), follows_(follows), number_(number) {}

std::optional<std::string> Writer::begin() {
  ++begun_;
  if (!follows_) {
    arena_.agent->refresh(devices_);
    for (const auto& [name, device] : arena_.agent->devices()) {
      const bool mine = std::find(devices_.begin(), devices_.end(), name) != devices_.end();
      if (mine && !device.settled) throw Violation("not settled after a refresh: " + device.text);
    }
    return state();
  }
  for (const auto& file : files_) {
    file->write(arena_.layout.own_place(number_), {begun_}, kWays[below(kWayCount)]);
    file->sync();
  }
  const auto deadline = Clock::now() + kSettleDeadline;
  while (true) {
    const auto known = arena_.agent->devices();
    bool settled = true;
    for (const std::string& name : devices_) {
      if (known.at(name).dirty_bytes == 0) {
        throw Violation("written, synced and not dirty: " + known.at(name).text);
      }
      settled &= known.at(name).settled;
    }
    if (settled) return state();
    if (Clock::now() > deadline) throw Violation("a view that does not settle");
    std::this_thread::sleep_for(microseconds(500));
  }
}

void Writer::transaction() {
  const unsigned group = below(arena_.layout.groups);
  const std::uint64_t floor = follows_ ? told(group) : arena_.ledger->floor(group);
  const std::optional<std::string> tid = begin();
  if (!tid) {  // the devices show different states, which is no state to start from
    if (follows_) arena_.agent->abort(devices_);
    return;
  }
  const Word found = read_state(group, *tid, floor, std::nullopt);
  arena_.ledger->seen(found, false, "before a write");
  arena_.ledger->check_state(group, found, *tid, "device " + devices_.front());
  const Word made = arena_.ledger->begin(found);
  for (const Place& place : arena_.layout.places(group)) {
    files_[place.volume]->write(place.offset, made, kWays[below(kWayCount)]);
    if (below(4) == 0) std::this_thread::sleep_for(microseconds(below(1000)));
  }
  std::string committed;
  if (below(16) != 0) {
    committed = arena_.agent->commit(devices_);
    if (committed.empty()) ++conflicts_;
  } else {
    ++aborts_;
  }
  if (!committed.empty()) {
    ++commits_;
    return arena_.ledger->committed(group, made, committed, arena_.agent_number);
  }
  arena_.agent->abort(devices_);
  arena_.ledger->given_up(made);
  for (const Place& place : arena_.layout.places(group)) {
    const Way way = kWays[below(kWayCount)];
    arena_.ledger->seen(read(place, way), false, where(place, name_of(way)) + " after an abort");
  }
}

void Writer::run(std::stop_token stop) {
  while (!stop.stop_requested()) transaction();
}

std::string Writer::report() const {
  return "writer of " + devices_.front() + (follows_ ? " (follows)" : "") + ": " +
         std::to_string(commits_) + " commits, " + std::to_string(conflicts_) + " conflicts, " +
         std::to_string(aborts_) + " aborts";
}

// --- Follower

Follower::Follower(const Arena& arena, Names devices, Way way, std::shared_ptr<Seen> seen,
                   unsigned seed)
    : Actor(arena, std::move(devices), false, seed), way_(way), seen_(std::move(seen)) {}

std::shared_ptr<Follower::Seen> Follower::nothing_seen(const Layout& layout) {
  auto seen = std::make_shared<Seen>();
  for (unsigned group = 0; group < layout.groups; ++group) {
    for (const Place& place : layout.places(group)) (*seen)[key_of(place)] = 0;
  }
  return seen;
}

// At any time: nothing that was given up, nothing older than what was acknowledged, and no place
// goes back.
void Follower::look(unsigned group) {
  for (const Place& place : arena_.layout.places(group)) {
    std::atomic<std::uint64_t>& seen = seen_->at(key_of(place));
    const std::uint64_t before = seen;
    const std::uint64_t floor = told(group);
    const Word word = read(place, way_);
    const std::string at = where(place, name_of(way_));
    arena_.ledger->seen(word, true, at);
    if (word.counter() < floor) {
      throw Violation("stale: " + at + " shows " + word.text() + ", after the commit of " +
                      std::to_string(floor) + " was acknowledged");
    }
    if (word.counter() < before) {
      throw Violation("went back: " + at + " shows " + word.text() + ", after " +
                      std::to_string(before));
    }
    std::uint64_t most = before;
    while (most < word.counter() && !seen.compare_exchange_weak(most, word.counter())) {
    }
  }
}

// At any time: a page that is read at once is of one state.
void Follower::look_at_page(unsigned group) {
  for (unsigned volume = 0; volume < arena_.layout.volumes; ++volume) {
    const std::byte* page = files_[volume]->read_page(arena_.layout.shared_page(group), way_);
    Word first;
    Word second;
    std::memcpy(&first, page + Layout::kOfOnePage[0], sizeof first);
    std::memcpy(&second, page + Layout::kOfOnePage[1], sizeof second);
    if (first != second) {
      throw Violation("torn page of device " + devices_[volume] + " by " + name_of(way_) + ": " +
                      first.text() + " and " + second.text());
    }
  }
}

// After an answer: nothing older than the tid that it tells, settled or not. Between two equal
// answers, both settled: the whole is of that state.
void Follower::look_between_answers(unsigned group) {
  const std::uint64_t floor = told(group);
  const auto known = arena_.agent->devices();
  const std::optional<std::string> before = state_of(known);
  const std::vector<Place> places = arena_.layout.places(group);
  std::vector<Word> words;
  for (const Place& place : places) words.push_back(read(place, way_));
  const std::optional<std::string> after = state();
  for (std::size_t i = 0; i < words.size(); ++i) {
    arena_.ledger->check_not_older(group, words[i], known.at(devices_[places[i].volume]).tid,
                                   where(places[i], name_of(way_)));
  }
  if (!before || after != before) return;
  ++states_;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string at = where(places[i], name_of(way_)) + " at " + *before;
    if (words[i] != words[0]) {
      throw Violation("torn: " + at + " shows " + arena_.ledger->story(group, words[i]) +
                      ", device " + devices_[0] + " shows " +
                      arena_.ledger->story(group, words[0]));
    }
  }
  const std::string at = where(places[0], name_of(way_));
  if (words[0].counter() < floor) throw Violation("stale: " + at + " shows " + words[0].text());
  arena_.ledger->check_state(group, words[0], *before, at);
}

void Follower::run(std::stop_token stop) {
  while (!stop.stop_requested()) {
    const unsigned group = below(arena_.layout.groups);
    ++passes_;
    look(group);
    if (way_ == Way::kRead || way_ == Way::kDirect) look_at_page(group);
    if (passes_ % 16 == 0) look_between_answers(group);
    std::this_thread::sleep_for(microseconds(below(1000)));
  }
}

std::string Follower::report() const {
  return "reader of " + devices_.front() + " by " + name_of(way_) + ": " + std::to_string(passes_) +
         " passes, " + std::to_string(states_) + " states";
}

// --- Snapshots

Snapshots::Snapshots(const Arena& arena, Names devices, unsigned seed)
    : Actor(arena, std::move(devices), false, seed) {}

void Snapshots::run(std::stop_token stop) {
  while (!stop.stop_requested()) {
    std::vector<std::uint64_t> floors;
    for (unsigned group = 0; group < arena_.layout.groups; ++group) {
      floors.push_back(arena_.ledger->floor(group));
    }
    arena_.agent->refresh(devices_);
    ++refreshes_;
    const std::optional<std::string> tid = state();
    if (!tid) continue;  // a commit came between the refreshes of two devices
    ++states_;
    for (unsigned round = 0; round < 4; ++round) {
      for (unsigned group = 0; group < arena_.layout.groups; ++group) {
        const Word word = read_state(group, *tid, floors[group], std::nullopt);
        arena_.ledger->seen(word, true, "device " + devices_.front());
        arena_.ledger->check_state(group, word, *tid, "device " + devices_.front());
      }
      std::this_thread::sleep_for(microseconds(below(10000)));
    }
  }
}

std::string Snapshots::report() const {
  return "reader of " + devices_.front() + " after refresh: " + std::to_string(refreshes_) +
         " refreshes, " + std::to_string(states_) + " states";
}

}  // namespace zbig::race
