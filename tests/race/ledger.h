// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

// Ledger: what the writers did, and so what anybody may see.
//
// A word is what a transaction puts at every place of a group: a counter, one more than what it
// found there, and the number of the attempt, so that the value of an attempt that was given up is
// known again. From what is seen, and from nothing else, follows which promises (docs/man/zbig.1,
// CONSISTENCY) are kept.

namespace zbig::race {

// A promise that was broken.
struct Violation : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Word {
  std::uint64_t value = 0;
  static constexpr unsigned kAttemptBits = 24;

  std::uint64_t counter() const { return value >> kAttemptBits; }
  std::uint32_t attempt() const { return value & ((1u << kAttemptBits) - 1); }
  std::string text() const {
    return std::to_string(counter()) + " of attempt " + std::to_string(attempt());
  }
  auto operator<=>(const Word&) const = default;
};

// Any thread.
class Ledger {
 public:
  explicit Ledger(unsigned groups);

  // --- writers
  // The word to write where `found` was.
  Word begin(Word found);
  // `agent`: the number of the one that made the commit, if one did. Throws Violation if two
  // transactions had the same counter: one of them was lost.
  void committed(unsigned group, Word word, const std::string& tid,
                 std::optional<std::size_t> agent);
  // A conflict, or an abort. Throws Violation if a reader has seen it.
  void given_up(Word word);

  // --- readers
  // The counter of the newest commit that was acknowledged: no reader that asks the database now
  // may see less.
  std::uint64_t floor(unsigned group) const { return groups_[group].floor; }
  // Of those that an agent acknowledged: nor may a reader that begins now, on its devices.
  std::uint64_t floor(unsigned group, std::size_t agent) const {
    return groups_[group].floors[agent];
  }
  static constexpr std::size_t kMostAgents = 8;
  // Throws Violation if the word was given up. `other`: seen through a device other than the one
  // that it was written to.
  void seen(Word word, bool other, const std::string& where);
  // Throws Violation if there was a newer one at `tid`.
  void check_not_older(unsigned group, Word word, const std::string& tid, const std::string& where);
  // Throws Violation if it is not the state at `tid`, which it was seen at.
  void check_state(unsigned group, Word word, const std::string& tid, const std::string& where);

  // The word, and the transaction that made it, if that is known.
  std::string story(unsigned group, Word word);

 private:
  enum State : std::uint8_t { kUnknown, kPending, kSeen, kCommitted, kGivenUp };
  struct Group {
    std::atomic<std::uint64_t> floor = 0;
    std::array<std::atomic<std::uint64_t>, kMostAgents> floors{};  // by agent
    std::mutex mutex;
    std::map<std::uint64_t, std::string> tids;  // by counter; guarded by mutex
  };

  std::string tid_of(Group& group, std::uint64_t counter);

  std::vector<Group> groups_;
  std::unique_ptr<std::atomic<State>[]> attempts_;
  std::atomic<std::uint32_t> next_attempt_ = 1;
};

}  // namespace zbig::race
