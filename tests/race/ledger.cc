// SPDX-License-Identifier: BSD-3-Clause
#include "tests/race/ledger.h"

#include <chrono>
#include <thread>

namespace zbig::race {
namespace {

constexpr std::size_t kAttempts = std::size_t{1} << Word::kAttemptBits;
// How many counters back a group remembers when each was committed.
constexpr std::size_t kRemembered = 10000;
// A transaction is seen before its writer has been told that it is in.
constexpr std::chrono::seconds kAcknowledged{60};

}  // namespace

Ledger::Ledger(unsigned groups)
    : groups_(groups), attempts_(std::make_unique<std::atomic<State>[]>(kAttempts)) {}

Word Ledger::begin(Word found) {
  std::uint32_t attempt = 0;
  while (attempt == 0) attempt = next_attempt_++ % kAttempts;
  attempts_[attempt] = kPending;
  return {((found.counter() + 1) << Word::kAttemptBits) | attempt};
}

void Ledger::committed(unsigned group, Word word, const std::string& tid,
                       std::optional<std::size_t> agent) {
  attempts_[word.attempt()] = kCommitted;
  Group& of = groups_[group];
  const std::lock_guard lock(of.mutex);
  const auto [entry, fresh] = of.tids.emplace(word.counter(), tid);
  if (!fresh) {
    throw Violation("lost update: group " + std::to_string(group) + ": transactions " +
                    entry->second + " and " + tid + " both made it " + word.text());
  }
  if (of.tids.size() > kRemembered) of.tids.erase(of.tids.begin());
  if (of.floor < word.counter()) of.floor = word.counter();
  if (agent && of.floors[*agent] < word.counter()) of.floors[*agent] = word.counter();
}

void Ledger::given_up(Word word) {
  if (attempts_[word.attempt()].exchange(kGivenUp) == kSeen) {
    throw Violation("word " + word.text() + " was seen by a reader and then not committed");
  }
}

void Ledger::seen(Word word, bool other, const std::string& where) {
  if (word.value == 0) return;
  std::atomic<State>& state = attempts_[word.attempt()];
  State now = state;
  if (now == kPending && other) state.compare_exchange_strong(now, kSeen);
  if (now == kGivenUp) throw Violation(where + ": shows " + word.text() + ", which was given up");
  if (now == kUnknown) throw Violation(where + ": shows " + word.text() + ", which nobody wrote");
}

std::string Ledger::tid_of(Group& group, std::uint64_t counter) {
  const std::lock_guard lock(group.mutex);
  const auto found = group.tids.find(counter);
  return found == group.tids.end() ? "" : found->second;
}

std::string Ledger::story(unsigned group, Word word) {
  const std::string made = tid_of(groups_[group], word.counter());
  return word.text() + (made.empty() ? "" : " (" + made + ")");
}

void Ledger::check_state(unsigned group, Word word, const std::string& tid,
                         const std::string& where) {
  Group& of = groups_[group];
  if (word.value != 0) {
    const auto deadline = std::chrono::steady_clock::now() + kAcknowledged;
    std::string made = tid_of(of, word.counter());
    while (made.empty() && attempts_[word.attempt()] != kGivenUp &&
           std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      made = tid_of(of, word.counter());
    }
    if (made.empty()) throw Violation(where + ": shows " + word.text() + ", never committed");
    if (made > tid) {
      throw Violation(where + ": at " + tid + " shows " + word.text() + " of " + made);
    }
  }
  check_not_older(group, word, tid, where);
}

void Ledger::check_not_older(unsigned group, Word word, const std::string& tid,
                             const std::string& where) {
  const std::string next = tid_of(groups_[group], word.counter() + 1);
  if (!next.empty() && next <= tid) {
    throw Violation(where + ": at " + tid + " shows " + word.text() + ", older than that of " +
                    next);
  }
}

}  // namespace zbig::race
