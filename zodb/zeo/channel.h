// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <unordered_map>

#include "zodb/error.h"
#include "zodb/zeo/message.h"
#include "zodb/zeo/transport.h"

// Channel: calls over one connection to a server, which knows them again by number.
//
// K1  Each call is answered exactly once: by the server's reply or, when the connection ends, by
//     nothing.
// K2  Answers, and the server's own calls, are given to us in the loop's thread, in the order in
//     which they came. Whoever keeps a record that was loaded relies on it.

namespace zbig::zeo {

using Reply = std::shared_ptr<const Message>;
// Called in the loop's thread; without a reply when the connection ended before it came.
using OnReply = std::function<void(const Reply&)>;

class Channel : public Transport::Receiver, public std::enable_shared_from_this<Channel> {
 public:
  // Who is told, in the loop's thread.
  class Owner {
   public:
    virtual ~Owner() = default;
    // The server has greeted: calls may be made.
    virtual void on_open(Channel& channel) = 0;
    virtual void on_server_call(Channel& channel, const Message& message) = 0;
    virtual void on_end(Channel& channel, const Error& why) = 0;
  };

  // `owner` must outlive the loop's thread.
  static std::shared_ptr<Channel> open(Loop& loop, const Options& options, Owner& owner);

  // --- any thread, once open

  void call(std::string_view method, std::span<const Arg> args, OnReply on_reply);
  std::future<Reply> call(std::string_view method, std::span<const Arg> args);
  // One way: there is no answer. An error ends the connection.
  void tell(std::string_view method, std::span<const Arg> args);
  void close(const Error& why);

  // Before a large call, so that what is to be sent does not pile up; see Transport.
  bool wait_for_room(std::size_t most, std::chrono::milliseconds patience) {
    return transport_->wait_for_room(most, patience);
  }
  // It ended, or is about to.
  bool ended() const { return ended_ || closing_; }
  // Since when the server has said nothing.
  std::chrono::milliseconds silence() const;
  // A sign of life, if none went for a while: a ping where an answer is waited for.
  void keep_alive();

 private:
  Channel(Loop& loop, Owner& owner) : loop_(loop), owner_(owner) {}
  void on_frame(Frame frame) override;
  void on_closed(const Error& why) override;
  void greet(const Frame& frame);
  OnReply take(std::int64_t id);
  void heard();

  Loop& loop_;
  Owner& owner_;
  std::shared_ptr<Transport> transport_;
  bool greeted_ = false;  // the loop's thread
  Encoding encoding_ = Encoding::kMsgpack;
  std::atomic<bool> ended_ = false;
  std::atomic<bool> closing_ = false;
  std::atomic<bool> pinging_ = false;
  std::atomic<std::chrono::steady_clock::rep> last_heard_ = 0;
  std::chrono::steady_clock::time_point last_sign_{};  // the loop's thread

  std::mutex mutex_;
  std::int64_t next_id_ = 1;                         // guarded by mutex_
  std::unordered_map<std::int64_t, OnReply> calls_;  // guarded by mutex_
};

}  // namespace zbig::zeo
