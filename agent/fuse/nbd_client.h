// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/fuse/event_loop.h"
#include "agent/fuse/nbd_link.h"

// NbdClient: requests to one export, whatever becomes of its server.
//
// The server may die and be started again at any time (a crash, an upgrade). Programs above must
// only notice that it takes longer. So links that break are made again, and what was in flight is
// sent once more over the new one. That is right because every request can be repeated: a read, a
// write or a zeroing at an absolute place, a flush. And because the server keeps across its death
// what it has acknowledged (the overlay's files); a server that forgets must not be restarted
// under a device.
//
// N1  Of two requests that overlap, at least one of them a write, the second is not submitted
//     before the first is done. (The kernel keeps it: a page under writeback is neither written nor
//     read again.) So the order in which requests are resent does not matter.
// N2  A request waits for a server that is gone until `dead_timeout` has passed since the last link
//     broke; then it fails with EIO, and so does every new one until a link is ready again. A
//     server that is there and slow is waited for without end: a stuck request is better than a
//     lost write.
// N3  A server that comes back with a smaller export, or a read-only one under a writable device,
//     is not used.

namespace zbig::fuse {

class NbdClient : public EventSource {
 public:
  struct Settings {
    std::string uri;
    unsigned connections = 1;
    std::chrono::seconds dead_timeout{60};
    bool read_only = false;
  };
  struct Statistics {
    std::uint64_t requests = 0;
    std::uint64_t bytes_read = 0;
    std::uint64_t bytes_written = 0;
    std::uint64_t links_lost = 0;
    std::uint64_t failed = 0;  // requests that ended in an error
  };

  NbdClient(EventLoop& loop, Settings settings);
  ~NbdClient() override;

  // Waits for the first link. Throws Unavailable, ReadOnly, Invalid (a size that is no device).
  ExportInfo connect(std::chrono::seconds patience);

  // Any number of requests; `done` is called from the loop.
  void submit(std::unique_ptr<NbdRequest> request);

  // The size that the server must have from now on to be used (N3).
  void set_size(std::uint64_t size) { size_ = size; }
  // A link knows the size that the export had when it was made. This makes every link anew and
  // calls `done` with the size that the server has now, or with an empty optional after 10 s.
  void reopen(std::function<void(std::optional<std::uint64_t>)> done);

  // Flushes if possible and says goodbye, within `patience`.
  void close(std::chrono::seconds patience);

  const Statistics& statistics() const { return statistics_; }
  std::size_t waiting() const { return queue_.size(); }
  std::size_t in_flight() const;
  std::size_t links_ready() const;
  const std::string& last_error() const { return last_error_; }

  // Timers.
  int fd() const override { return -1; }
  short events() const override { return 0; }
  void on_ready(short) override {}
  std::optional<Clock::time_point> deadline() const override;
  void on_deadline() override;

 private:
  // A place for a link: the link, or when to try to make one.
  struct Slot;

  void look_at(Slot& slot);
  void open(Slot& slot);
  void lose(Slot& slot);
  bool refuse(NbdLink& link);
  void dispatch();
  void give_up();
  unsigned wanted_links() const;

  EventLoop& loop_;
  Settings settings_;
  std::uint64_t size_ = 0;
  bool multi_conn_ = false;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::deque<std::unique_ptr<NbdRequest>> queue_;
  std::optional<Clock::time_point> down_since_;  // no link is ready
  bool gave_up_ = false;                         // N2
  std::function<void(std::optional<std::uint64_t>)> reopened_;
  Clock::time_point reopen_deadline_;
  std::string last_error_;
  Statistics statistics_;
};

}  // namespace zbig::fuse
