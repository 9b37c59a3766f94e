// SPDX-License-Identifier: BSD-3-Clause
#include "agent/fuse/control_listener.h"

#include <cerrno>
#include <cstring>

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "agent/fuse/message.h"
#include "zodb/error.h"

namespace zbig::fuse {
namespace {

Fd unix_socket() {
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) throw_errno("socket", errno);
  return socket;
}

}  // namespace

ControlListener::ControlListener(EventLoop& loop, std::string path, std::function<void(Fd)> serve)
    : loop_(loop), path_(std::move(path)), serve_(std::move(serve)) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path_.size() >= sizeof address.sun_path) {
    throw Invalid("control socket " + path_ + ": longer than " +
                  std::to_string(sizeof address.sun_path - 1) + " bytes");
  }
  std::memcpy(address.sun_path, path_.data(), path_.size());
  const auto* name = reinterpret_cast<const sockaddr*>(&address);
  if (connect(unix_socket().get(), name, sizeof address) == 0 || errno == EAGAIN) {
    throw Busy("control socket " + path_ + ": somebody listens there");
  }
  if (errno == ECONNREFUSED) unlink(path_.c_str());
  Fd socket = unix_socket();
  const mode_t before = umask(0177);  // 0600 from its first moment
  const int bound = bind(socket.get(), name, sizeof address);
  const int error = errno;
  umask(before);
  if (bound != 0) throw_errno("control socket " + path_, error);
  if (listen(socket.get(), 16) != 0) throw_errno("control socket " + path_, errno);
  socket_ = std::move(socket);
  loop_.add(*this);
}

ControlListener::~ControlListener() {
  loop_.remove(*this);
  unlink(path_.c_str());
}

short ControlListener::events() const { return POLLIN; }

void ControlListener::on_ready(short) {
  Fd client(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!client) return;  // it went away again
  try {
    serve_(std::move(client));
  } catch (const std::exception& error) {
    say(error.what());
  }
}

}  // namespace zbig::fuse
