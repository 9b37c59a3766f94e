// SPDX-License-Identifier: BSD-3-Clause
#include "agent/fuse/turn.h"

#include <cerrno>

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "zodb/error.h"

namespace zbig::fuse {
namespace {

constexpr int kAskEveryMs = 5;

}  // namespace

Fd Turn::make_file() {
  Fd file(memfd_create("zbig-fuse-turns", MFD_CLOEXEC));
  if (!file) throw_errno("make a file in memory", errno);
  return file;
}

Turn::Turn(int file, Kind kind, const Fd& client) : file_(file), kind_(kind) {
  while (!set(F_WRLCK)) {
    pollfd item = {client.get(), POLLRDHUP, 0};
    if (poll(&item, 1, kAskEveryMs) > 0) throw Unavailable("the client has gone");
  }
}

Turn::~Turn() { set(F_UNLCK); }

bool Turn::set(short type) const {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = kind_;
  lock.l_len = 1;
  if (fcntl(file_, F_SETLK, &lock) == 0) return true;
  if (errno == EAGAIN || errno == EACCES || errno == EINTR) return false;
  throw_errno("wait for a turn", errno);
}

}  // namespace zbig::fuse
