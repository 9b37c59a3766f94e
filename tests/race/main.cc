// SPDX-License-Identifier: BSD-3-Clause
//
// race: tries to catch zbig at showing what it promises not to show (docs/man/zbig.1,
// CONSISTENCY), while writers on several devices of the same volumes commit against each other.
//
// Devices are attached by whoever starts it (race_test.sh, or a person), on whatever front end.
// Each participant is a list of devices, one of every volume, in the same order for all; they may
// be of several agents of one database. Others may be programs in Python (python_writer.h). Of each
// group of words (groups.h) every transaction makes all words equal and one more than they were.
//
//   P1  When the reply to a commit, abort or refresh has come, no read is older: on the devices
//       that it named, and after a commit on those of the same agent that follow.
//   P2  Nobody sees what another device has not committed.
//   P3  Through the page cache no word goes back, and a page that is read at once is of one state.
//   P4  What is read between two answers of the status that are settled and of one tid is of just
//       that state; so is what is read of a device of --follow manual between two refreshes.
//   P5  Of two transactions that start from the same state one has a conflict.
//
// Broken on purpose, each of these was caught within seconds: nothing is dropped (deaf_test.sh);
// the last of several extents is not; the server is told `settled` before the drop; the status
// tells the new tid before the drop.
//
// Exit status: 0; 1 a promise was broken; 2 it could not be tried; 3 somebody had no turn.

#include <condition_variable>
#include <cstdlib>
#include <iostream>
#include <mutex>
#include <sstream>
#include <thread>

#include <boost/program_options.hpp>

#include "tests/race/actor.h"
#include "tests/race/python_writer.h"

namespace zbig::race {
namespace {

namespace po = boost::program_options;

struct Options {
  std::vector<std::string> sockets;
  std::vector<std::string> writers;
  std::vector<std::string> following_writers;
  std::vector<std::string> readers;
  std::vector<std::string> snapshot_readers;
  std::vector<std::string> python_writers;
  unsigned seconds = 20;
  unsigned seed = 0;
  Layout layout;
};

Options parse(int argc, char** argv) {
  Options options;
  const char* socket = std::getenv("ZBIG_SOCKET");
  po::options_description described(
      "Options (DEVICES: one of each volume, as A,B; of the second agent, as 2/A,B)");
  auto add = described.add_options();
  add("socket", po::value(&options.sockets), "of an agent; default: $ZBIG_SOCKET");
  add("writer", po::value(&options.writers), "DEVICES of --follow manual");
  add("following-writer", po::value(&options.following_writers), "DEVICES that follow");
  add("reader", po::value(&options.readers), "DEVICES that follow");
  add("snapshot-reader", po::value(&options.snapshot_readers), "DEVICES of --follow manual");
  add("python-writer", po::value(&options.python_writers),
      "COMMAND: python_writer.py with its arguments, the volumes in the same order");
  add("seconds", po::value(&options.seconds)->default_value(options.seconds), "how long");
  add("groups", po::value(&options.layout.groups)->default_value(options.layout.groups),
      "of words; fewer make more conflicts");
  add("block", po::value(&options.layout.block)->default_value(options.layout.block),
      "bytes of a block of the volumes");
  add("seed", po::value(&options.seed)->default_value(std::random_device()()), "of the dice");
  po::variables_map given;
  po::store(po::parse_command_line(argc, argv, described), given);
  po::notify(given);
  if (options.sockets.empty()) options.sockets.push_back(socket == nullptr ? "" : socket);
  if (options.sockets.size() > Ledger::kMostAgents) throw std::runtime_error("too many agents");
  if (options.writers.empty() && options.following_writers.empty()) {
    std::cerr << "race: no writer\n" << described;
    std::exit(2);
  }
  return options;
}

Names split(const std::string& list, char by) {
  std::istringstream words(list);
  Names names;
  for (std::string name; std::getline(words, name, by);) names.push_back(name);
  return names;
}

// "A,B" or "2/A,B"
struct Party {
  std::size_t agent = 0;
  Names devices;

  explicit Party(const std::string& list) {
    const auto slash = list.find('/');
    if (slash != std::string::npos) agent = std::stoul(list) - 1;
    devices = split(slash == std::string::npos ? list : list.substr(slash + 1), ',');
  }
};

class Race {
 public:
  explicit Race(const Options& options) : options_(options), ledger_(options.layout.groups) {
    for (const std::string& socket : options.sockets) agents_.emplace_back(socket);
    layout_ = options.layout;
    const std::vector<std::string>& any =
        options.writers.empty() ? options.following_writers : options.writers;
    layout_.volumes = static_cast<unsigned>(Party(any.front()).devices.size());
    unsigned number = 0;
    unsigned seed = options.seed;
    for (const std::string& list : options.writers) add<Writer>(list, false, number++, ++seed);
    for (const std::string& list : options.following_writers) {
      add<Writer>(list, true, number++, ++seed);
    }
    for (const std::string& list : options.readers) {
      const auto cached = Follower::nothing_seen(layout_);
      for (const Way way : kWays) {
        const auto seen = way == Way::kDirect ? Follower::nothing_seen(layout_) : cached;
        add<Follower>(list, way, seen, ++seed);
      }
    }
    for (const std::string& list : options.snapshot_readers) add<Snapshots>(list, ++seed);
    for (const std::string& command : options.python_writers) {
      actors_.push_back(std::make_unique<PythonWriter>(arena_of(0), split(command, ' '), ++seed));
    }
    for (const auto& actor : actors_) {
      if (!actor->devices().empty() && actor->devices().size() != layout_.volumes) {
        throw std::runtime_error("all need the same number of devices");
      }
    }
  }

  int run() {
    {
      std::vector<std::jthread> threads;
      for (const auto& actor : actors_) {
        threads.emplace_back([this, &actor = *actor] { take_part(actor); });
      }
      std::unique_lock lock(mutex_);
      ended_.wait_for(lock, std::chrono::seconds(options_.seconds), [&] { return status_ != 0; });
      stop_.request_stop();
    }
    for (const auto& actor : actors_) {
      std::cout << actor->report() << "\n";
      if (status_ == 0 && !actor->took_part()) {
        std::cerr << "race: somebody had no turn: " << actor->report() << "\n";
        status_ = 3;
      }
    }
    return status_;
  }

 private:
  Arena arena_of(std::size_t agent) {
    const auto writers = options_.writers.size() + options_.following_writers.size();
    return {&agents_.at(agent), agent, &ledger_, layout_,
            layout_.size(static_cast<unsigned>(writers))};
  }

  template <class Kind, class... Arguments>
  void add(const std::string& list, Arguments&&... arguments) {
    const Party party(list);
    actors_.push_back(std::make_unique<Kind>(arena_of(party.agent), party.devices,
                                             std::forward<Arguments>(arguments)...));
  }

  void take_part(Actor& actor) {
    try {
      actor.run(stop_.get_token());
    } catch (const Violation& violation) {
      fail(1, std::string("a promise was broken: ") + violation.what());
    } catch (const std::exception& error) {
      fail(2, error.what());
    }
  }

  void fail(int status, const std::string& why) {
    const std::lock_guard lock(mutex_);
    std::cerr << "race: " << why << " (seed " << options_.seed << ")" << std::endl;
    if (status_ == 0) status_ = status;
    stop_.request_stop();
    ended_.notify_all();
  }

  const Options options_;
  std::vector<AgentApi> agents_;
  Ledger ledger_;
  Layout layout_;
  std::vector<std::unique_ptr<Actor>> actors_;
  std::stop_source stop_;
  std::mutex mutex_;
  std::condition_variable ended_;
  int status_ = 0;  // guarded by mutex_ while threads run
};

}  // namespace
}  // namespace zbig::race

int main(int argc, char** argv) {
  try {
    return zbig::race::Race(zbig::race::parse(argc, argv)).run();
  } catch (const std::exception& error) {
    std::cerr << "race: " << error.what() << "\n";
    return 2;
  }
}
