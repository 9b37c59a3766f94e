// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/channel.h"

#include <utility>

namespace zbig::zeo {
namespace {

using Clock = std::chrono::steady_clock;

// A server that has an answer to give and has said nothing for so long is asked whether it lives.
constexpr std::chrono::seconds kAskAfter{5};
// As ZEO's own client.
constexpr std::chrono::seconds kSignEvery{60};

}  // namespace

std::shared_ptr<Channel> Channel::open(Loop& loop, const Options& options, Owner& owner) {
  std::shared_ptr<Channel> channel(new Channel(loop, owner));
  channel->heard();
  channel->transport_ = Transport::open(loop, options, channel);
  return channel;
}

void Channel::call(std::string_view method, std::span<const Arg> args, OnReply on_reply) {
  const std::lock_guard lock(mutex_);
  if (ended_) {
    loop_.post([on_reply = std::move(on_reply)] { on_reply(nullptr); });
    return;
  }
  const std::int64_t id = next_id_++;
  Bytes frame = encode_call(encoding_, id, false, method, args);
  calls_.emplace(id, std::move(on_reply));
  transport_->send(std::move(frame));
}

std::future<Reply> Channel::call(std::string_view method, std::span<const Arg> args) {
  auto promise = std::make_shared<std::promise<Reply>>();
  auto future = promise->get_future();
  call(method, args, [promise](const Reply& reply) { promise->set_value(reply); });
  return future;
}

void Channel::tell(std::string_view method, std::span<const Arg> args) {
  transport_->send(encode_call(encoding_, 0, true, method, args));
}

void Channel::close(const Error& why) {
  closing_ = true;
  transport_->close(why);
}

std::chrono::milliseconds Channel::silence() const {
  const Clock::time_point heard{Clock::duration{last_heard_.load()}};
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - heard);
}

void Channel::heard() { last_heard_ = Clock::now().time_since_epoch().count(); }

void Channel::keep_alive() {
  if (!greeted_ || ended_) return;
  bool awaited = false;
  {
    const std::lock_guard lock(mutex_);
    awaited = !calls_.empty();
  }
  if (awaited && !pinging_ && silence() > kAskAfter) {
    pinging_ = true;
    call("ping", {}, [self = shared_from_this()](const Reply&) { self->pinging_ = false; });
  } else if (Clock::now() - last_sign_ > kSignEvery) {
    last_sign_ = Clock::now();
    transport_->send(encode_heartbeat(encoding_));
  }
}

void Channel::greet(const Frame& frame) {
  const std::string_view greeting = as_text(frame.view());
  if (greeting.size() < 2 || greeting.size() > 16 || (greeting[0] != 'M' && greeting[0] != 'Z')) {
    throw Corrupt("what answers there is no ZEO server");
  }
  if (greeting.substr(1) != "5") {
    throw Unsupported("the server speaks protocol " + std::string(greeting) +
                      ", zbig only M5 and Z5: of ZEO 5 and 6");
  }
  encoding_ = static_cast<Encoding>(greeting[0]);
  greeted_ = true;
  last_sign_ = Clock::now();
  Bytes answer{std::byte{0}, std::byte{0}, std::byte{0}, std::byte{2}};
  append(answer, greeting);
  transport_->send(std::move(answer));
  owner_.on_open(*this);
}

OnReply Channel::take(std::int64_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = calls_.find(id);
  if (found == calls_.end()) return {};
  OnReply on_reply = std::move(found->second);
  calls_.erase(found);
  return on_reply;
}

void Channel::on_frame(Frame frame) {
  heard();
  if (!greeted_) {
    greet(frame);
    return;
  }
  const auto message =
      std::make_shared<const Message>(Message::decode(encoding_, std::move(frame)));
  if (!message->is_reply()) {
    owner_.on_server_call(*this, *message);
  } else if (const OnReply on_reply = take(message->id())) {
    on_reply(message);
  } else {
    throw Corrupt("a reply to call " + std::to_string(message->id()) + ", which nobody made");
  }
}

void Channel::on_closed(const Error& why) {
  std::unordered_map<std::int64_t, OnReply> unanswered;
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    unanswered.swap(calls_);
  }
  // First the owner: whoever calls again must find the connection gone.
  owner_.on_end(*this, why);
  for (const auto& [id, on_reply] : unanswered) on_reply(nullptr);
}

}  // namespace zbig::zeo
