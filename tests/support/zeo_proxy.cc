// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/zeo_proxy.h"

#include <stdexcept>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace zbig::test {
namespace {

bool read_all(int fd, std::byte* out, std::size_t size) {
  while (size > 0) {
    const ssize_t got = ::recv(fd, out, size, 0);
    if (got <= 0) return false;
    out += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

bool write_all(int fd, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (put <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
  return true;
}

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

}  // namespace

bool calls(ByteView payload, std::string_view method) {
  return as_text(payload.first(std::min<std::size_t>(payload.size(), 64))).find(method) !=
         std::string_view::npos;
}

ZeoProxy::ZeoProxy(std::string server, Hook hook)
    : server_(std::move(server)), hook_(std::move(hook)) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  auto* const name = reinterpret_cast<sockaddr*>(&address);
  if (::bind(listener_, name, size) != 0 || ::listen(listener_, 16) != 0 ||
      ::getsockname(listener_, name, &size) != 0) {
    throw std::runtime_error("the proxy cannot listen");
  }
  port_ = ntohs(address.sin_port);
  acceptor_ = std::jthread([this](const std::stop_token& stop) { accept(stop); });
}

ZeoProxy::~ZeoProxy() {
  acceptor_.request_stop();
  acceptor_.join();
  cut();
  pipes_.clear();
  for (const int fd : sockets_) ::close(fd);
  ::close(listener_);
}

std::string ZeoProxy::url() const {
  return "zeo://127.0.0.1:" + std::to_string(port_) + "?storage=1";
}

void ZeoProxy::cut() {
  const std::lock_guard lock(mutex_);
  for (const int fd : sockets_) ::shutdown(fd, SHUT_RDWR);
}

void ZeoProxy::refuse(bool refuse) { refuse_ = refuse; }

int ZeoProxy::connect() const {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int port = std::stoi(server_.substr(server_.find(':') + 1));
  sockaddr_in address = loopback(static_cast<std::uint16_t>(port));
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    ::close(fd);
    return -1;
  }
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

void ZeoProxy::accept(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    pollfd item{.fd = listener_, .events = POLLIN, .revents = 0};
    if (::poll(&item, 1, 20) <= 0) continue;
    const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) continue;
    const int server = refuse_ ? -1 : connect();
    if (server < 0) {
      ::close(client);
      continue;
    }
    const int on = 1;
    ::setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    ++accepted_;
    const std::lock_guard lock(mutex_);
    sockets_.push_back(client);
    sockets_.push_back(server);
    pipes_.emplace_back([=, this] { pipe(client, server, Direction::kToServer); });
    pipes_.emplace_back([=, this] { pipe(server, client, Direction::kToClient); });
  }
}

void ZeoProxy::pipe(int from, int to, Direction direction) {
  while (true) {
    Bytes message(4);
    if (!read_all(from, message.data(), 4)) break;
    const std::size_t size = get_be<4>(message.data());
    message.resize(4 + size);
    if (!read_all(from, message.data() + 4, size)) break;
    const Verdict verdict = hook_ ? hook_(direction, ByteView(message).subspan(4)) : Verdict::kPass;
    if (verdict == Verdict::kCut) break;
    if (verdict != Verdict::kDrop && !write_all(to, message)) break;
    if (verdict == Verdict::kPassAndCut) break;
  }
  ::shutdown(from, SHUT_RDWR);
  ::shutdown(to, SHUT_RDWR);
}

}  // namespace zbig::test
