// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <stop_token>
#include <string>
#include <vector>

#include "tests/race/agent_api.h"
#include "tests/race/device_file.h"
#include "tests/race/groups.h"
#include "tests/race/ledger.h"

// Those who take part: each has one device of every volume, and one thread or more.

namespace zbig::race {

struct Arena {
  const AgentApi* agent;  // of the actor's devices
  std::size_t agent_number;
  Ledger* ledger;
  Layout layout;
  std::size_t size;
};

class Actor {
 public:
  Actor(const Arena& arena, Names devices, bool writable, unsigned seed);
  virtual ~Actor() = default;
  Actor(const Actor&) = delete;
  Actor& operator=(const Actor&) = delete;

  const Names& devices() const { return devices_; }
  // Until it is told to stop. Throws Violation.
  virtual void run(std::stop_token stop) = 0;
  virtual std::string report() const = 0;
  // It tried what it is for at least once.
  virtual bool took_part() const = 0;

 protected:
  // The state that all its devices show, if they show the same one and no view moves.
  std::optional<std::string> state() const { return state_of(arena_.agent->devices()); }
  std::optional<std::string> state_of(const std::map<std::string, DeviceState>& known) const;
  unsigned below(unsigned end) { return std::uniform_int_distribution(0u, end - 1)(random_); }
  Word read(const Place& place, Way way) { return files_[place.volume]->read(place.offset, way); }
  // What its devices must show, without asking the database.
  std::uint64_t told(unsigned group) const {
    return arena_.ledger->floor(group, arena_.agent_number);
  }
  std::string where(const Place& place, const std::string& how) const;
  // Reads a group and throws Violation unless it is of the state `tid`, and not older than `floor`.
  // Without a `way`, each word is read in another.
  Word read_state(unsigned group, const std::string& tid, std::uint64_t floor,
                  std::optional<Way> way);

  Arena arena_;
  Names devices_;
  std::vector<std::unique_ptr<DeviceFile>> files_;  // one a volume
  std::minstd_rand random_;
};

// Adds one to a group, in one transaction over its devices.
//
// The devices show the state that it starts from until it commits: those of --follow manual because
// nothing but its own requests moves their view; those that follow because it has first written
// something, brought it to the server (fsync), and seen that no view is about to move (settled).
class Writer : public Actor {
 public:
  Writer(const Arena& arena, Names devices, bool follows, unsigned number, unsigned seed);
  void run(std::stop_token stop) override;
  std::string report() const override;
  bool took_part() const override { return commits_ + conflicts_ > 0; }

 private:
  std::optional<std::string> begin();
  void transaction();

  bool follows_;
  unsigned number_;
  std::uint64_t begun_ = 0;
  std::uint64_t commits_ = 0;
  std::uint64_t conflicts_ = 0;
  std::uint64_t aborts_ = 0;
};

// Reads devices that follow, in one way.
class Follower : public Actor {
 public:
  // What was seen last at each place through the page cache: common to the ways that share it.
  using Seen = std::map<std::uint64_t, std::atomic<std::uint64_t>>;

  Follower(const Arena& arena, Names devices, Way way, std::shared_ptr<Seen> seen, unsigned seed);
  static std::shared_ptr<Seen> nothing_seen(const Layout& layout);
  void run(std::stop_token stop) override;
  std::string report() const override;
  bool took_part() const override { return passes_ > 0 && states_ > 0; }

 private:
  void look(unsigned group);
  void look_at_page(unsigned group);
  void look_between_answers(unsigned group);

  Way way_;
  std::shared_ptr<Seen> seen_;
  std::uint64_t passes_ = 0;
  std::uint64_t states_ = 0;
};

// Reads devices of --follow manual, in all ways, between one refresh and the next.
class Snapshots : public Actor {
 public:
  Snapshots(const Arena& arena, Names devices, unsigned seed);
  void run(std::stop_token stop) override;
  std::string report() const override;
  bool took_part() const override { return states_ > 0; }

 private:
  std::uint64_t refreshes_ = 0;
  std::uint64_t states_ = 0;
};

}  // namespace zbig::race
