// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include <poll.h>

#include "agent/fuse/event_loop.h"

// NbdLink: one connection to the server, by libnbd's asynchronous calls.
//
// A link is made, becomes ready, carries requests, and some day breaks; it is never mended.
// Its owner takes the unfinished requests from it and makes a new one (NbdClient does).
//
// L1  Every request that was submitted comes out exactly once: its `done` is called, or it is in
//     what take_unfinished() returns.
// L2  `done` is called from on_ready only, never from within submit().

struct nbd_handle;

namespace zbig::fuse {

struct NbdRequest {
  enum class Kind { kRead, kWrite, kZero, kFlush };
  Kind kind = Kind::kFlush;
  std::byte* data = nullptr;  // kRead: filled; kWrite: sent. Lives until `done`
  std::uint64_t offset = 0;
  std::uint64_t length = 0;            // at most kMaxTransfer, or kMaxZero for kZero
  bool keep_allocated = false;         // kZero: the server must not make a hole of it
  std::function<void(int)> done = {};  // an errno value, 0: good

  static constexpr std::uint64_t kMaxTransfer = 32u << 20;
  static constexpr std::uint64_t kMaxZero = 1u << 30;
};

struct ExportInfo {
  std::uint64_t size = 0;
  std::uint64_t max_transfer = 0;  // bytes of a read or write request
  bool read_only = false;
  bool can_flush = false;
  bool can_zero = false;
  bool can_multi_conn = false;
};

class NbdLink : public EventSource {
 public:
  enum class State { kConnecting, kReady, kBroken };

  // Starts to connect; waits for nothing.
  explicit NbdLink(const std::string& uri);
  ~NbdLink() override;

  State state() const { return state_; }
  const ExportInfo& info() const { return info_; }     // of a ready link
  const std::string& error() const { return error_; }  // of a broken one
  std::size_t in_flight() const { return in_flight_.size(); }

  void submit(std::unique_ptr<NbdRequest> request);
  void break_off(const std::string& why);
  std::vector<std::unique_ptr<NbdRequest>> take_unfinished();
  // Says goodbye to the server; no request may be in flight.
  void disconnect();

  int fd() const override;
  short events() const override;
  void on_ready(short revents) override;

 private:
  struct Flight {
    NbdLink* link;
    std::unique_ptr<NbdRequest> request;
    int error = 0;
    bool finished = false;
  };
  struct Closer {
    void operator()(nbd_handle* handle) const;
  };

  static int completed(void* flight, int* error);
  void advance();
  void become_ready();
  void finish_completed();

  State state_ = State::kConnecting;
  ExportInfo info_;
  std::string error_;
  // libnbd holds pointers to the entries: std::list does not move them. Declared before the handle,
  // so that it outlives it.
  std::list<Flight> in_flight_;
  bool any_completed_ = false;
  std::unique_ptr<nbd_handle, Closer> handle_;
};

}  // namespace zbig::fuse
