// SPDX-License-Identifier: BSD-3-Clause
#include "nbdkit-plugin/control_server.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "zodb/error.h"

namespace zbig {
namespace {

constexpr std::size_t kMaxConnections = 64;
// A client that does not take its reply for so long is given up.
constexpr int kSendTimeoutMs = 30000;

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    throw Invalid("control socket " + path + ": a socket's path has at most " +
                  std::to_string(sizeof(address.sun_path) - 1) + " bytes");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size());
  return address;
}

// A socket file that nobody listens to any more (we hold the lock) is in the way; any other file is
// somebody's.
void remove_stale_socket(const std::string& path) {
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return;
    throw_errno("stat " + path, errno);
  }
  if (!S_ISSOCK(status.st_mode)) {
    throw Invalid("control socket " + path + ": something that is no socket is there");
  }
  if (unlink(path.c_str()) != 0) throw_errno("remove " + path, errno);
}

bool may_connect(const File& socket) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  if (getsockopt(socket.fd(), SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
  return peer.uid == 0 || peer.uid == geteuid();
}

// As send(2), and passes a descriptor unless it is -1.
ssize_t send_some(int socket, std::string_view bytes, int passed) {
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (passed >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &passed, sizeof(int));
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// Sends a line, and with its first byte a descriptor if there is one. False if the peer is gone or
// does not read.
bool send_line(const File& socket, std::string line, int passed = -1) {
  line += '\n';
  std::string_view rest = line;
  while (!rest.empty()) {
    const ssize_t sent = send_some(socket.fd(), rest, passed);
    if (sent > 0) {
      rest.remove_prefix(static_cast<std::size_t>(sent));
      passed = -1;
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return false;
    pollfd ready{socket.fd(), POLLOUT, 0};
    if (poll(&ready, 1, kSendTimeoutMs) <= 0) return false;
  }
  return true;
}

}  // namespace

ControlServer::ControlServer(std::string path) : path_(std::move(path)) {
  const sockaddr_un address = address_of(path_);
  lock_ = File::open(path_ + ".lock", O_RDWR | O_CREAT);
  if (flock(lock_.fd(), LOCK_EX | LOCK_NB) != 0) {
    throw Busy("control socket " + path_ + ": another server listens there");
  }
  remove_stale_socket(path_);
  listener_ = File(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), path_);
  if (listener_.fd() < 0) throw_errno("make control socket " + path_, errno);
  // Linux gives the file the mode of the socket, less the umask: it is never open to others.
  if (fchmod(listener_.fd(), 0600) != 0 ||
      bind(listener_.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    throw_errno("bind control socket " + path_, errno);
  }
  if (chmod(path_.c_str(), 0600) != 0 || listen(listener_.fd(), SOMAXCONN) != 0) {
    throw_errno("listen on control socket " + path_, errno);
  }
  stop_ = File(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
  if (stop_.fd() < 0) throw_errno("make an eventfd", errno);
}

ControlServer::~ControlServer() {
  const std::uint64_t one = 1;
  if (acceptor_.joinable()) {
    [[maybe_unused]] const ssize_t wrote = write(stop_.fd(), &one, sizeof(one));
    acceptor_.join();
  }
  connections_.clear();  // joins
  if (owner_ == getpid()) unlink(path_.c_str());
}

void ControlServer::start(Answer answer, Refuse refuse) {
  answer_ = std::move(answer);
  refuse_ = std::move(refuse);
  owner_ = getpid();
  acceptor_ = std::jthread([this] { accept_all(); });
}

void ControlServer::accept_all() {
  for (;;) {
    pollfd ready[] = {{stop_.fd(), POLLIN, 0}, {listener_.fd(), POLLIN, 0}};
    if (poll(ready, 2, -1) < 0 && errno != EINTR) return;
    if (ready[0].revents != 0) return;
    if (ready[1].revents == 0) continue;
    File socket(accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK), path_);
    if (socket.fd() < 0) {
      // Out of descriptors: the connection stays in the queue, so look again in a moment.
      if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) poll(ready, 1, 100);
      continue;
    }
    connections_.remove_if([](const Connection& c) { return c.ended.load(); });
    if (!may_connect(socket)) continue;
    if (connections_.size() >= kMaxConnections) {
      send_line(socket, refuse_("there are too many control connections"));
      continue;
    }
    Connection& connection = connections_.emplace_back();
    connection.socket = std::move(socket);
    connection.thread = std::jthread([this, &connection] {
      try {
        serve(connection.socket);
      } catch (const std::exception&) {
        // Out of memory: this connection ends, the server goes on.
      }
      shutdown(connection.socket.fd(), SHUT_RDWR);
      connection.ended = true;
    });
  }
}

void ControlServer::serve(const File& socket) const {
  std::string buffer;
  std::size_t searched = 0;  // no newline before it
  for (;;) {
    const std::size_t newline = buffer.find('\n', searched);
    if (newline != std::string::npos) {
      const Reply reply = answer_(std::string_view(buffer).substr(0, newline));
      const bool sent = send_line(socket, reply.line, reply.file ? reply.file->fd() : -1);
      if (reply.afterwards) reply.afterwards();
      if (!sent) return;
      buffer.erase(0, newline + 1);
      searched = 0;
      continue;
    }
    searched = buffer.size();
    if (buffer.size() > kMaxLine) {
      send_line(socket, refuse_("a line has at most 1 MiB"));
      return;
    }
    pollfd ready[] = {{stop_.fd(), POLLIN, 0}, {socket.fd(), POLLIN, 0}};
    if (poll(ready, 2, -1) < 0 && errno != EINTR) return;
    if (ready[0].revents != 0) return;
    char piece[16384];
    const ssize_t got = recv(socket.fd(), piece, sizeof(piece), 0);
    if (got == 0) return;
    if (got > 0) {
      buffer.append(piece, static_cast<std::size_t>(got));
    } else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
      return;
    }
  }
}

}  // namespace zbig
