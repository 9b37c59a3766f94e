// SPDX-License-Identifier: BSD-3-Clause
#include "agent/control_client.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <system_error>

#include <nlohmann/json.hpp>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "agent/fd.h"
#include "zodb/error.h"
#include "zodb/error_word.h"

namespace zbig {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxLine = 1u << 20;

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    throw Invalid("socket path " + path + ": longer than " +
                  std::to_string(sizeof address.sun_path - 1) + " bytes");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

// How long one request may take.
class Patience {
 public:
  Patience(std::chrono::milliseconds timeout, std::stop_token stop)
      : deadline_(Clock::now() + timeout), stop_(std::move(stop)) {}

  // Of a wait; 0 at the deadline and not before, for callers tell by the time why it failed.
  int slice() {
    if (!stopping_ && stop_.stop_requested()) {
      stopping_ = true;
      deadline_ = std::min(deadline_, Clock::now() + kWhileStopping);
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline_ - Clock::now());
    return static_cast<int>(std::clamp(left, std::chrono::milliseconds(0), kSlice).count());
  }

 private:
  static constexpr std::chrono::milliseconds kWhileStopping{1500};
  static constexpr std::chrono::milliseconds kSlice{100};

  Clock::time_point deadline_;
  const std::stop_token stop_;
  bool stopping_ = false;
};

void wait_for(int fd, short events, Patience& patience, const std::string& path, int needed) {
  while (true) {
    std::array<pollfd, 2> items{{{.fd = fd, .events = events, .revents = 0},
                                 {.fd = needed, .events = POLLIN, .revents = 0}}};
    const int slice = patience.slice();
    const int n = slice == 0 ? 0 : ::poll(items.data(), items.size(), slice);
    if (n > 0 && items[0].revents != 0) return;
    if (n > 0) throw Unavailable("the server of the database ended");
    if (slice == 0) throw Unavailable("the server at " + path + " does not answer");
  }
}

// As recv(2), and takes a descriptor that comes along.
ssize_t receive_some(int socket, std::span<char> buffer, Fd& passed) {
  iovec part{buffer.data(), buffer.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  const cmsghdr* header = n < 0 ? nullptr : CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
      header->cmsg_len == CMSG_LEN(sizeof(int))) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
    passed = Fd(fd);
  }
  return n;
}

}  // namespace

Fd connect_unix_socket(const std::string& path) {
  const sockaddr_un address = address_of(path);
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) throw_errno("make a socket", errno);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    throw Unavailable("connect to " + path + ": " + std::generic_category().message(errno));
  }
  return fd;
}

Fd listen_unix_socket(const std::string& path) {
  const sockaddr_un address = address_of(path);
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) throw_errno("make a socket", errno);
  // The mode of the socket from its first moment; the process has one thread at this point.
  const mode_t before = ::umask(0177);
  const int bound = ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  ::umask(before);
  if (bound != 0) throw_errno("make the socket " + path, error);
  if (::listen(fd.get(), 64) != 0) throw_errno("listen on " + path, errno);
  return fd;
}

// One on which something has arrived, unasked, is at its end: the server died.
Fd ControlClient::connection() const {
  const std::lock_guard lock(mutex_);
  while (!idle_.empty()) {
    Fd fd = std::move(idle_.back());
    idle_.pop_back();
    pollfd item{.fd = fd.get(), .events = POLLIN, .revents = 0};
    if (::poll(&item, 1, 0) == 0) return fd;
  }
  return connect_unix_socket(socket_path_);
}

Json ControlClient::request(const Json& request, std::chrono::milliseconds timeout, int needed,
                            Fd* passed) const {
  Patience patience(timeout, stop_);
  Fd fd = connection();
  const std::string line = request.dump() + "\n";
  for (std::size_t done = 0; done < line.size();) {
    wait_for(fd.get(), POLLOUT, patience, socket_path_, needed);
    const ssize_t n = ::send(fd.get(), line.data() + done, line.size() - done, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n < 0)
      throw Unavailable("the server at " + socket_path_ + ": " +
                        std::generic_category().message(errno));
    done += static_cast<std::size_t>(n);
  }
  std::string reply;
  Fd came;
  while (!reply.ends_with('\n')) {
    wait_for(fd.get(), POLLIN, patience, socket_path_, needed);
    char buffer[16384];
    const ssize_t n = receive_some(fd.get(), buffer, came);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n <= 0) throw Unavailable("the server at " + socket_path_ + " went away");
    reply.append(buffer, static_cast<std::size_t>(n));
    if (reply.size() > kMaxLine) throw Failed("the server at " + socket_path_ + ": endless reply");
  }
  {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(fd));
  }
  Json answer = Json::parse(reply, nullptr, false);
  if (!answer.is_object() || !answer.contains("ok") || !answer["ok"].is_boolean()) {
    throw Failed("the server at " + socket_path_ + ": no reply of this protocol");
  }
  if (answer["ok"].get<bool>()) {
    if (passed != nullptr) *passed = std::move(came);
    return answer;
  }
  const auto text = [&](const char* key) {
    return answer.contains(key) && answer[key].is_string() ? answer[key].get<std::string>() : "";
  };
  throw_error(error_code(text("code")), text("error"));
}

}  // namespace zbig
