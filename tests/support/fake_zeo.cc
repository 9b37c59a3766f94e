// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/fake_zeo.h"

#include <atomic>
#include <cstring>
#include <stdexcept>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "zodb/error.h"

namespace zbig::test {

using zeo::Encoding;
using zeo::Message;

Bytes packed_bytes(std::string_view bytes) {
  Bytes out{std::byte{0xc6}};
  out.resize(5);
  put_be<4>(out.data() + 1, bytes.size());
  append(out, bytes);
  return out;
}

Bytes packed_id(std::uint64_t id) {
  Bytes bytes(8);
  put_be<8>(bytes.data(), id);
  return packed_bytes(as_text(bytes));
}

Bytes packed_list(const std::vector<Bytes>& items) {
  Bytes out{static_cast<std::byte>(0x90 | items.size())};
  for (const Bytes& item : items) append(out, ByteView(item));
  return out;
}

Bytes frame(ByteView payload) {
  Bytes out(4);
  put_be<4>(out.data(), payload.size());
  append(out, payload);
  return out;
}

namespace {

Bytes message(std::int64_t id, int flag, std::string_view name, const Bytes& args) {
  Bytes payload{std::byte{0x94}, std::byte{0xd3}};
  payload.resize(10);
  put_be<8>(payload.data() + 2, static_cast<std::uint64_t>(id));
  payload.push_back(static_cast<std::byte>(flag));
  payload.push_back(static_cast<std::byte>(0xa0 | name.size()));
  append(payload, name);
  append(payload, ByteView(args));
  return frame(payload);
}

}  // namespace

Bytes reply(std::int64_t id, const Bytes& value, int flag) {
  return message(id, flag, ".reply", value);
}

Bytes server_call(std::string_view method, const Bytes& args) {
  return message(0, 1, method, args);
}

FakeZeo::FakeZeo(Bytes greeting, Answer answer)
    : greeting_(std::move(greeting)), answer_(std::move(answer)) {
  static std::atomic<int> number = 0;
  path_ = "/tmp/zbig-fake-" + std::to_string(::getpid()) + "-" + std::to_string(number++);
  listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path_.c_str(), sizeof address.sun_path - 1);
  if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener_, 8) != 0) {
    throw std::runtime_error("the fake server cannot listen");
  }
  thread_ = std::jthread([this](const std::stop_token& stop) { serve(stop); });
}

FakeZeo::~FakeZeo() {
  thread_.request_stop();
  hang_up();
  thread_.join();
  ::close(listener_);
  ::unlink(path_.c_str());
}

void FakeZeo::send(const Bytes& bytes) {
  const std::lock_guard lock(mutex_);
  if (client_ >= 0) static_cast<void>(::send(client_, bytes.data(), bytes.size(), MSG_NOSIGNAL));
}

void FakeZeo::hang_up() {
  const std::lock_guard lock(mutex_);
  if (client_ >= 0) ::shutdown(client_, SHUT_RDWR);
}

void FakeZeo::serve(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    pollfd item{.fd = listener_, .events = POLLIN, .revents = 0};
    if (::poll(&item, 1, 10) <= 0) continue;
    const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    {
      const std::lock_guard lock(mutex_);
      client_ = fd;
    }
    talk(fd);
    const std::lock_guard lock(mutex_);
    client_ = -1;
    ::close(fd);
  }
}

void FakeZeo::talk(int fd) {
  send(greeting_);
  zeo::FrameReader reader;
  bool greeted = false;
  try {
    while (true) {
      const auto room = reader.room();
      const ssize_t got = ::recv(fd, room.data(), room.size(), 0);
      if (got <= 0) return;
      reader.advance(static_cast<std::size_t>(got), [&](zeo::Frame payload) {
        if (!greeted) {
          greeted = true;
          return;
        }
        const Message call = Message::decode(Encoding::kMsgpack, std::move(payload));
        if (call.id() == 0) return;
        Bytes out = answer_ ? answer_(call) : Bytes();
        if (out.empty()) {
          out = reply(call.id(), call.name() == "register" ? packed_id(0) : kPackedNone);
        }
        send(out);
      });
    }
  } catch (const Error&) {
  }
}

}  // namespace zbig::test
