// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "agent/fd.h"
#include "agent/nbd_connection.h"
#include "bigfile/commit.h"

// DirtyReader: what a frozen device holds, for a commit.
//
// The extents come from the block status of `EXPORT#frozen`. The bytes are read ahead of the
// commit, in ascending order, by a thread of its own: while one block is encoded and stored, the
// next ones are on their way. What is in flight or waiting to be taken is at most kWindow bytes, so
// memory does not grow with what is dirty; the thread starts with the first read, so that of many
// readers in one commit those that wait for their turn have no window yet.
//
// R1  The window is a run of consecutive pieces of the dirty extents; next_ is the first that is
//     not asked for yet.
// R2  A piece's buffer is the connection's until `state` says done, then the taker's.
// R3  Only the reading thread touches connection_ once it runs.
//
// A read behind the window (a block that is looked at twice) is served by a second connection,
// without reading ahead. When all that is dirty is little, it is read at once and no thread starts.
//
// Threads: extents() and read() from one thread at a time.

namespace zbig {

class DirtyReader : public DirtySource {
 public:
  // `connection`: to "EXPORT#frozen" of the server at `socket_path`. Throws Unavailable, Failed.
  DirtyReader(std::string socket_path, std::unique_ptr<NbdConnection> connection);
  ~DirtyReader() override;

  const ExtentList& extents() const override { return extents_; }
  std::uint64_t total_bytes() const { return total_bytes_; }
  void read(std::uint64_t offset, std::span<std::byte> out) override;

  // Gives the connection back, once everything has been read; null if something may be in flight.
  std::unique_ptr<NbdConnection> release();

 private:
  static constexpr std::uint64_t kPiece = 1u << 20;
  static constexpr std::uint64_t kWindow = 16u << 20;
  static constexpr std::size_t kMaxPieces = 256;

  struct Piece {
    Extent extent;
    std::unique_ptr<std::byte[]> data;
    bool done = false;
    int error = 0;
  };

  void read_ahead(std::stop_token stop);
  bool ask_for_next(std::unique_lock<std::mutex>& lock);
  void read_behind(std::uint64_t offset, std::span<std::byte> out);
  void wake();

  const std::string socket_path_;
  const std::string export_name_;

  std::mutex mutex_;
  std::condition_variable piece_done_;
  std::deque<std::unique_ptr<Piece>> window_;  // guarded by mutex_
  std::uint64_t window_bytes_ = 0;             // guarded by mutex_
  std::size_t next_extent_ = 0;                // guarded by mutex_
  std::uint64_t next_offset_ = 0;              // within extents_[next_extent_]; guarded by mutex_
  std::exception_ptr failure_;                 // of the reading thread; guarded by mutex_

  // After window_: closing it may still complete pieces.
  std::unique_ptr<NbdConnection> connection_;
  std::unique_ptr<NbdConnection> second_connection_;
  ExtentList extents_;
  std::uint64_t total_bytes_ = 0;
  Fd wake_fd_;

  std::jthread thread_;  // the last member: ends first
};

}  // namespace zbig
