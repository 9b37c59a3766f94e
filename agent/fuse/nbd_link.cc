// SPDX-License-Identifier: BSD-3-Clause
#include "agent/fuse/nbd_link.h"

#include <algorithm>
#include <cerrno>

#include <libnbd.h>

#include "zodb/error.h"

namespace zbig::fuse {
namespace {

// An error that says nothing about the request, only that this server will not answer it: the
// request is put to the next one. ESHUTDOWN is what a server replies while it ends.
bool means_link_is_lost(int error) {
  return error == ENOTCONN || error == ESHUTDOWN || error == EPIPE || error == ECONNRESET ||
         error == ECONNABORTED;
}

std::string last_error() {
  const char* text = nbd_get_error();
  return text == nullptr ? "unknown error" : text;
}

}  // namespace

void NbdLink::Closer::operator()(nbd_handle* handle) const { nbd_close(handle); }

NbdLink::NbdLink(const std::string& uri) : handle_(nbd_create()) {
  if (!handle_) throw Failed("libnbd: " + last_error());
  // Simple replies carry the same data with less to parse; nobody asks for block status here.
  // Reads that fail are reported as such, so there is no need to clear the buffer first.
  if (nbd_set_request_structured_replies(handle_.get(), false) < 0 ||
      nbd_set_pread_initialize(handle_.get(), false) < 0 ||
      nbd_aio_connect_uri(handle_.get(), uri.c_str()) < 0) {
    state_ = State::kBroken;
    error_ = last_error();
  }
  if (state_ == State::kConnecting) advance();
}

NbdLink::~NbdLink() { handle_.reset(); }

void NbdLink::break_off(const std::string& why) {
  if (state_ == State::kBroken) return;
  state_ = State::kBroken;
  error_ = why;
}

std::vector<std::unique_ptr<NbdRequest>> NbdLink::take_unfinished() {
  handle_.reset();  // from here on libnbd does not touch their buffers
  std::vector<std::unique_ptr<NbdRequest>> requests;
  for (Flight& flight : in_flight_) requests.push_back(std::move(flight.request));
  in_flight_.clear();
  return requests;
}

void NbdLink::disconnect() {
  if (state_ == State::kReady) nbd_aio_disconnect(handle_.get(), 0);
  break_off("disconnected");
}

// Called by libnbd from within its own functions, so it only takes a note. Returns 1: the command
// is done with.
int NbdLink::completed(void* user, int* error) {
  auto* flight = static_cast<Flight*>(user);
  flight->finished = true;
  flight->error = *error;
  flight->link->any_completed_ = true;
  return 1;
}

void NbdLink::submit(std::unique_ptr<NbdRequest> request) {
  invariant(state_ == State::kReady, "a request for a link that is not ready");
  in_flight_.push_back({.link = this, .request = std::move(request)});
  Flight& flight = in_flight_.back();
  const NbdRequest& asked = *flight.request;
  nbd_handle* handle = handle_.get();
  const nbd_completion_callback done{.callback = completed, .user_data = &flight, .free = nullptr};
  std::int64_t cookie = -1;
  switch (asked.kind) {
    case NbdRequest::Kind::kRead:
      cookie = nbd_aio_pread(handle, asked.data, asked.length, asked.offset, done, 0);
      break;
    case NbdRequest::Kind::kWrite:
      cookie = nbd_aio_pwrite(handle, asked.data, asked.length, asked.offset, done, 0);
      break;
    case NbdRequest::Kind::kZero:
      cookie = nbd_aio_zero(handle, asked.length, asked.offset, done,
                            asked.keep_allocated ? LIBNBD_CMD_FLAG_NO_HOLE : 0);
      break;
    case NbdRequest::Kind::kFlush:
      cookie = nbd_aio_flush(handle, done, 0);
      break;
  }
  // Sending it may be what shows that the server is gone. libnbd closes the descriptor then, so
  // that no event would tell of it any more, and gives out a cookie all the same. The request stays
  // with the others, for the owner (L2: nothing is called here).
  if (nbd_aio_is_ready(handle) != 1 && nbd_aio_is_processing(handle) != 1) {
    return break_off(cookie < 0 ? last_error() : "the server closed the connection");
  }
  if (cookie >= 0 || flight.finished) return;
  // Not even sent, and that is this request's fault.
  const int error = nbd_get_errno();
  flight.finished = true;
  flight.error = error == 0 ? EIO : error;
  any_completed_ = true;
}

int NbdLink::fd() const { return state_ == State::kBroken ? -1 : nbd_aio_get_fd(handle_.get()); }

short NbdLink::events() const {
  if (state_ == State::kBroken) return 0;
  const unsigned direction = nbd_aio_get_direction(handle_.get());
  short events = 0;
  if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0) events |= POLLIN;
  if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0) events |= POLLOUT;
  // A request that could not be sent is finished already, but nobody has been told.
  return any_completed_ ? static_cast<short>(events | POLLOUT) : events;
}

void NbdLink::on_ready(short revents) {
  nbd_handle* handle = handle_.get();
  const unsigned direction = nbd_aio_get_direction(handle);
  const bool failed = (revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
  int result = 0;
  if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0 && ((revents & POLLIN) != 0 || failed)) {
    result = nbd_aio_notify_read(handle);
  } else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0 &&
             ((revents & POLLOUT) != 0 || failed)) {
    result = nbd_aio_notify_write(handle);
  }
  if (result < 0) {
    // A failed transition leaves the handle dead; the sentence is gone after the next call.
    const std::string why = last_error();
    if (nbd_aio_is_dead(handle) == 1 || nbd_aio_is_closed(handle) == 1) break_off(why);
  }
  finish_completed();
  advance();
}

void NbdLink::advance() {
  nbd_handle* handle = handle_.get();
  if (state_ == State::kBroken) return;
  if (nbd_aio_is_dead(handle) == 1) return break_off("the server closed the connection");
  if (nbd_aio_is_closed(handle) == 1) return break_off("the server closed the connection");
  if (state_ == State::kConnecting && nbd_aio_is_ready(handle) == 1) become_ready();
}

void NbdLink::become_ready() {
  nbd_handle* handle = handle_.get();
  const std::int64_t size = nbd_get_size(handle);
  if (size < 0) return break_off(last_error());
  const std::int64_t max_transfer = nbd_get_block_size(handle, LIBNBD_SIZE_MAXIMUM);
  info_ = {.size = static_cast<std::uint64_t>(size),
           .max_transfer = max_transfer > 0 ? std::min(static_cast<std::uint64_t>(max_transfer),
                                                       NbdRequest::kMaxTransfer)
                                            : NbdRequest::kMaxTransfer,
           .read_only = nbd_is_read_only(handle) == 1,
           .can_flush = nbd_can_flush(handle) == 1,
           .can_zero = nbd_can_zero(handle) == 1,
           .can_multi_conn = nbd_can_multi_conn(handle) == 1};
  state_ = State::kReady;
}

void NbdLink::finish_completed() {
  while (any_completed_) {
    any_completed_ = false;
    for (auto flight = in_flight_.begin(); flight != in_flight_.end();) {
      const auto current = flight++;
      if (!current->finished) continue;
      if (means_link_is_lost(current->error)) {  // stays, for take_unfinished()
        current->finished = false;
        break_off("the server is shutting down");
        continue;
      }
      const std::unique_ptr<NbdRequest> request = std::move(current->request);
      const int error = current->error;
      in_flight_.erase(current);
      request->done(error);
    }
  }
}

}  // namespace zbig::fuse
