// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "zodb/zeo/channel.h"
#include "zodb/zeo/feed.h"
#include "zodb/zeo/loop.h"
#include "zodb/zeo/options.h"

// Link: keeps a connection to the server, whatever happens to it.
//
// A connection is *ready* when it was registered and what was missed while there was none is known:
//
//   connect - greeting - register - getInvalidations(head) - is `head` there still? - ready
//
// Whoever wants something of the server waits for one that is ready, up to a deadline; when it
// breaks, the link makes another, first at once and then every 5 s.
//
// What `register` answers is never taken for the head: a server that crashed behind a vote says the
// tid of the transaction that it lost.
//
// L1  News (invalidations, own commits, and the points that sync() waits for) come into one queue
//     and are done in the order in which they came. One that has to be looked up first holds up
//     those behind it, so that the head moves in order.
// L2  A server whose history does not have our head any more (an older copy of the database, say)
//     is never used again: what we show, and what is built on it, is not its history. Every call
//     throws it from then on.
//
// Threads: a loop of its own, started by the first call of ready(). Locks: mutex_, never held
// across a call of anything else.

namespace zbig::zeo {

class Link : private Channel::Owner {
 public:
  using Clock = std::chrono::steady_clock;
  // How long somebody waits; begins when it is made.
  struct Patience {
    Clock::time_point deadline;
    std::uint64_t failures;  // that had been by then
  };

  Link(Options options, bool read_only, Feed& feed);
  ~Link() override;

  // --- any thread

  // "ZEO server zeo.example.org:8100"
  const std::string& name() const { return name_; }
  Patience patience();
  // Starts to connect, if nobody has.
  void start();
  // Throws what L2 says, if it came to that.
  void check_not_given_up();
  // Waits for a ready connection. Throws Unavailable past the deadline, and at once what the server
  // says that no waiting helps against: Failed, ReadOnly, Unsupported, Corrupt...
  std::shared_ptr<Channel> ready(const Patience& patience);
  // For who tries again because the connection broke: throws Unavailable past the deadline.
  void check_patience(const Patience& patience) const;
  // A ready connection if there is one at the moment.
  std::shared_ptr<Channel> ready_now();
  // An answer to a call made over whichever connection, made again if that broke. An exception is
  // an answer, too.
  Reply ask(const Patience& patience, std::string_view method, std::span<const Arg> args);
  // The answer, nothing if the connection broke. Throws Unavailable past the deadline.
  Reply await(std::future<Reply>& answer, const Patience& patience, std::string_view method) const;
  // As await, for what may take long while the server is well: a vote waits for other clients'
  // commits. Gives up when the server has been silent for as long as others would wait, and as it
  // may need to store `bytes`; and after half an hour, when another client has left its commit
  // open.
  template <class Answer>
  Answer await_long(const Channel& channel, std::future<Answer>& answer, std::uint64_t bytes,
                    std::string_view method) const {
    const auto deadline = Clock::now() + kLongestCommit;
    while (answer.wait_for(kLook) != std::future_status::ready) {
      check_alive(channel, bytes, deadline, method);
    }
    return answer.get();
  }

  // Returns when everything that was committed before the call is in the feed.
  void sync();

  // --- the loop's thread

  // Puts a commit of our own among the news. `then` is called when it is in the feed, or when the
  // connection has ended.
  void add_own_commit(Tid tid, std::vector<Oid> oids, std::function<void()> then);

 private:
  struct News {
    std::optional<Tid> tid;                // nothing: a point in time
    std::optional<std::vector<Oid>> oids;  // nothing: not known (yet)
    bool complete = true;
    std::function<void(bool alive)> then;
  };

  static constexpr std::chrono::milliseconds kLook{100};
  static constexpr std::chrono::minutes kLongestCommit{30};
  void check_alive(const Channel& channel, std::uint64_t bytes, Clock::time_point deadline,
                   std::string_view method) const;

  void on_open(Channel& channel) override;
  void on_server_call(Channel& channel, const Message& message) override;
  void on_end(Channel& channel, const Error& why) override;

  void connect();
  void tick();
  void on_registered(const Reply& reply);
  void ask_missed(Tid since);
  void on_missed(const Message& reply, Tid asked_since);
  void check_history(Tid tid, const std::optional<std::vector<Oid>>& oids);
  void on_history(const Message& reply, Tid tid, const std::optional<std::vector<Oid>>& oids);
  void caught_up(Tid tid, const std::optional<std::vector<Oid>>& oids);
  void become_ready();
  void went_back(const std::string& how);
  void add_news(News news);
  void do_news();
  void fail(const Error& why);
  template <class Then>
  void call(std::string_view method, std::span<const Arg> args, Then then);

  const Options options_;
  const bool read_only_;
  const std::string name_;
  Feed& feed_;

  // The loop's thread's.
  std::shared_ptr<Channel> channel_;
  Tid registered_;
  bool begun_ = false;  // the feed has
  bool verified_ = false;
  bool looking_up_ = false;
  std::deque<News> news_;  // L1
  std::chrono::milliseconds backoff_{0};

  std::atomic<bool> has_given_up_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  std::shared_ptr<Channel> ready_;
  std::uint64_t failures_ = 0;
  std::optional<Error> last_failure_;
  std::optional<Error> given_up_;  // L2
  std::unique_ptr<Loop> loop_;     // set once
};

}  // namespace zbig::zeo
