// SPDX-License-Identifier: BSD-3-Clause
#include "agent/nbd_connection.h"

#include <cerrno>
#include <cstring>

#include <libnbd.h>
#include <poll.h>

#include "zodb/error.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// A server that has not answered one request for so long does not live.
constexpr milliseconds kDeadline{30000};
constexpr std::uint64_t kStatusStep = 1u << 30;

// libnbd's callbacks are C functions with a pointer, and must not throw.

struct BlockStatus {
  ExtentList* extents;
  std::uint64_t position;  // what is described so far
  std::uint64_t end;
  int error = 0;
};

int on_block_status(void* user, const char*, std::uint64_t, std::uint32_t* entries,
                    std::size_t count, int*) {
  auto& status = *static_cast<BlockStatus*>(user);
  try {
    for (std::size_t i = 0; i + 1 < count; i += 2) {
      const std::uint64_t length =
          std::min<std::uint64_t>(entries[i], status.end - status.position);
      if (length > 0 && (entries[i + 1] & LIBNBD_STATE_HOLE) == 0) {
        ExtentList& list = *status.extents;
        if (!list.empty() && list.back().end() == status.position) {
          list.back().length += length;
        } else {
          list.push_back({status.position, length});
        }
      }
      status.position += length;
    }
  } catch (const std::bad_alloc&) {
    status.error = ENOMEM;
  }
  return 0;
}

int on_completion(void* user, int* error) {
  (*static_cast<std::function<void(int)>*>(user))(*error);
  return 1;  // libnbd forgets the command
}

void free_completion(void* user) {
  const std::unique_ptr<std::function<void(int)>> owned(
      static_cast<std::function<void(int)>*>(user));
}

nbd_completion_callback completion_of(std::function<void(int)> done) {
  auto owned = std::make_unique<std::function<void(int)>>(std::move(done));
  return {.callback = on_completion, .user_data = owned.release(), .free = free_completion};
}

}  // namespace

void NbdConnection::Closer::operator()(nbd_handle* handle) const { nbd_close(handle); }

void NbdConnection::fail(const std::string& what) {
  const char* reason = nbd_get_error();
  const std::string sentence =
      what + " of " + place_ + ": " + (reason ? reason : "no reason given");
  if (nbd_aio_is_dead(handle_.get()) || nbd_aio_is_closed(handle_.get())) {
    throw Unavailable(sentence);
  }
  throw Failed(sentence);
}

void NbdConnection::wait_until(const std::function<bool()>& done, const std::string& what) {
  const auto deadline = Clock::now() + kDeadline;
  while (!done()) {
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now());
    if (left.count() <= 0)
      throw Unavailable(what + " of " + place_ + ": the server does not answer");
    if (nbd_poll(handle_.get(), static_cast<int>(left.count())) < 0) fail(what);
  }
}

NbdConnection::NbdConnection(const std::string& socket_path, const std::string& export_name)
    : export_name_(export_name), place_("export " + export_name), handle_(nbd_create()) {
  nbd_handle* h = handle_.get();
  if (h == nullptr) throw Failed("libnbd: out of memory");
  if (nbd_set_export_name(h, export_name.c_str()) < 0 ||
      nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
      nbd_set_pread_initialize(h, false) < 0 || nbd_aio_connect_unix(h, socket_path.c_str()) < 0) {
    fail("connect to the server");
  }
  const auto deadline = Clock::now() + kDeadline;
  while (nbd_aio_is_connecting(h)) {
    if (Clock::now() > deadline)
      throw Unavailable("the server at " + socket_path + " does not answer");
    if (nbd_poll(h, 1000) < 0) {
      const char* reason = nbd_get_error();
      throw Unavailable("connect to " + place_ + ": " + (reason ? reason : "the server went away"));
    }
  }
  if (!nbd_aio_is_ready(h)) throw Unavailable("connect to " + place_ + ": the server refused");
  const std::int64_t size = nbd_get_size(h);
  if (size < 0) fail("size");
  size_ = static_cast<std::uint64_t>(size);
}

NbdConnection::~NbdConnection() = default;

bool NbdConnection::quiet() const {
  pollfd item{.fd = nbd_aio_get_fd(handle_.get()), .events = POLLIN, .revents = 0};
  return nbd_aio_is_ready(handle_.get()) > 0 && ::poll(&item, 1, 0) == 0;
}

ExtentList NbdConnection::data_extents() {
  ExtentList extents;
  BlockStatus status{.extents = &extents, .position = 0, .end = size_};
  while (status.position < size_) {
    const std::uint64_t before = status.position;
    const std::uint64_t count = std::min(kStatusStep, size_ - before);
    int result = -1;
    const nbd_extent_callback callback{
        .callback = on_block_status, .user_data = &status, .free = nullptr};
    const auto done = completion_of([&result](int error) { result = error; });
    if (nbd_aio_block_status(handle_.get(), count, before, callback, done, 0) < 0) {
      fail("block status");
    }
    wait_until([&] { return result >= 0; }, "block status");
    if (result == 0) result = status.error;
    if (result > 0) throw_errno("block status of " + place_, result);
    if (status.position == before) throw Failed("block status of " + place_ + ": an empty answer");
  }
  return extents;
}

void NbdConnection::read(std::uint64_t offset, std::span<std::byte> out) {
  int result = -1;
  start_read(offset, out, [&result](int error) { result = error; });
  wait_until([&] { return result >= 0; }, "read");
  if (result > 0) throw_errno("read at " + std::to_string(offset) + " of " + place_, result);
}

void NbdConnection::start_read(std::uint64_t offset, std::span<std::byte> out,
                               std::function<void(int)> done) {
  if (nbd_aio_pread(handle_.get(), out.data(), out.size(), offset, completion_of(std::move(done)),
                    0) < 0) {
    fail("read");
  }
}

void NbdConnection::poll(int wake_fd, milliseconds timeout) {
  nbd_handle* h = handle_.get();
  const unsigned direction = nbd_aio_get_direction(h);
  pollfd items[2] = {{.fd = nbd_aio_get_fd(h), .events = 0, .revents = 0},
                     {.fd = wake_fd, .events = POLLIN, .revents = 0}};
  if (direction & LIBNBD_AIO_DIRECTION_READ) items[0].events |= POLLIN;
  if (direction & LIBNBD_AIO_DIRECTION_WRITE) items[0].events |= POLLOUT;
  if (::poll(items, 2, static_cast<int>(timeout.count())) < 0) return;  // EINTR
  const short ready = items[0].revents;
  if ((ready & (POLLIN | POLLHUP)) != 0 && (direction & LIBNBD_AIO_DIRECTION_READ) != 0) {
    if (nbd_aio_notify_read(h) < 0) fail("read");
  } else if ((ready & POLLOUT) != 0 && (direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) {
    if (nbd_aio_notify_write(h) < 0) fail("read");
  } else if ((ready & (POLLERR | POLLNVAL)) != 0) {
    throw Unavailable("read of " + place_ + ": the connection broke");
  }
  if (nbd_aio_is_dead(h) || nbd_aio_is_closed(h)) {
    throw Unavailable("read of " + place_ + ": the server went away");
  }
}

std::string nbd_uri(const std::string& socket_path, const std::string& export_name) {
  const auto encode = [](const std::string& text, std::string_view kept) {
    std::string out;
    for (const char c : text) {
      if (std::isalnum(static_cast<unsigned char>(c)) || kept.find(c) != std::string_view::npos) {
        out += c;
      } else {
        char hex[4];
        std::snprintf(hex, sizeof hex, "%%%02X",
                      static_cast<unsigned>(static_cast<unsigned char>(c)));
        out += hex;
      }
    }
    return out;
  };
  return "nbd+unix:///" + encode(export_name, "-._~") + "?socket=" + encode(socket_path, "-._~/");
}

}  // namespace zbig
