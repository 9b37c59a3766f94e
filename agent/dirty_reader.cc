// SPDX-License-Identifier: BSD-3-Clause
#include "agent/dirty_reader.h"

#include <algorithm>
#include <cerrno>

#include <sys/eventfd.h>

#include "zodb/error.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kDeadline{30000};

}  // namespace

DirtyReader::DirtyReader(std::string socket_path, std::unique_ptr<NbdConnection> connection)
    : socket_path_(std::move(socket_path)),
      export_name_(connection->export_name()),
      connection_(std::move(connection)),
      extents_(connection_->data_extents()),
      wake_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!wake_fd_) throw_errno("make an eventfd", errno);
  for (const Extent& extent : extents_) total_bytes_ += extent.length;
}

DirtyReader::~DirtyReader() {
  thread_.request_stop();
  wake();
}

std::unique_ptr<NbdConnection> DirtyReader::release() {
  if (thread_.joinable()) {
    thread_.request_stop();
    wake();
    thread_.join();
  }
  const bool at_rest =
      std::all_of(window_.begin(), window_.end(), [](const auto& piece) { return piece->done; });
  return at_rest && !failure_ ? std::move(connection_) : nullptr;
}

void DirtyReader::wake() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_fd_.get(), &one, sizeof one);
}

void DirtyReader::read_ahead(std::stop_token stop) {
  try {
    while (!stop.stop_requested()) {
      {
        std::unique_lock lock(mutex_);
        while (ask_for_next(lock)) {
        }
      }
      connection_->poll(wake_fd_.get(), milliseconds(1000));
      std::uint64_t count = 0;
      [[maybe_unused]] const ssize_t n = ::read(wake_fd_.get(), &count, sizeof count);
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    failure_ = std::current_exception();
    piece_done_.notify_all();
  }
}

bool DirtyReader::ask_for_next(std::unique_lock<std::mutex>& lock) {
  if (next_extent_ == extents_.size() || window_.size() >= kMaxPieces ||
      (window_bytes_ >= kWindow && !window_.empty())) {
    return false;
  }
  const Extent& whole = extents_[next_extent_];
  const std::uint64_t offset = whole.offset + next_offset_;
  // Pieces end at multiples of their size, so that they do not straddle blocks.
  const std::uint64_t length = std::min(whole.end() - offset, kPiece - offset % kPiece);
  next_offset_ += length;
  if (next_offset_ == whole.length) {
    ++next_extent_;
    next_offset_ = 0;
  }
  auto owned = std::make_unique<Piece>();
  Piece* piece = owned.get();
  piece->extent = {offset, length};
  piece->data = std::make_unique_for_overwrite<std::byte[]>(length);
  window_.push_back(std::move(owned));
  window_bytes_ += length;

  lock.unlock();  // a completion may run inside, and takes the lock (R2: nobody frees the piece)
  connection_->start_read(offset, {piece->data.get(), length}, [this, piece](int error) {
    const std::lock_guard guard(mutex_);
    piece->done = true;
    piece->error = error;
    piece_done_.notify_all();
  });
  lock.lock();
  return true;
}

void DirtyReader::read(std::uint64_t offset, std::span<std::byte> out) {
  if (total_bytes_ <= kPiece) return connection_->read(offset, out);
  if (!thread_.joinable()) {
    thread_ = std::jthread([this](std::stop_token stop) { read_ahead(stop); });
  }
  while (!out.empty()) {
    std::unique_lock lock(mutex_);
    if (failure_) std::rethrow_exception(failure_);
    // Pieces that end before the range are done with: a commit goes upwards.
    const auto take_front = [&] {
      window_bytes_ -= window_.front()->extent.length;
      window_.pop_front();
      wake();
    };
    if (!window_.empty() && offset < window_.front()->extent.offset) {
      lock.unlock();
      return read_behind(offset, out);
    }
    const auto wanted = [&] {
      return failure_ || (!window_.empty() && window_.front()->done) ||
             (window_.empty() && next_extent_ == extents_.size());
    };
    if (!piece_done_.wait_for(lock, kDeadline, wanted)) {
      throw Unavailable("read of " + export_name_ + ": the server does not answer");
    }
    if (failure_) std::rethrow_exception(failure_);
    if (window_.empty()) {
      lock.unlock();
      return read_behind(offset, out);
    }
    const Piece& piece = *window_.front();
    if (piece.extent.end() <= offset) {
      take_front();
      continue;
    }
    if (offset < piece.extent.offset) {
      lock.unlock();
      return read_behind(offset, out);
    }
    if (piece.error != 0) {
      throw_errno("read at " + std::to_string(piece.extent.offset) + " of " + export_name_,
                  piece.error);
    }
    // Copies without the lock: the piece is ours until taken off the front (R2).
    lock.unlock();
    const std::uint64_t skip = offset - piece.extent.offset;
    const std::size_t n = std::min<std::size_t>(out.size(), piece.extent.length - skip);
    std::copy_n(piece.data.get() + skip, n, out.begin());
    offset += n;
    out = out.subspan(n);
  }
}

void DirtyReader::read_behind(std::uint64_t offset, std::span<std::byte> out) {
  if (!second_connection_) {
    second_connection_ = std::make_unique<NbdConnection>(socket_path_, export_name_);
  }
  for (std::size_t done = 0; done < out.size();) {
    const std::size_t n = std::min<std::size_t>(out.size() - done, 8 * kPiece);
    second_connection_->read(offset + done, out.subspan(done, n));
    done += n;
  }
}

}  // namespace zbig
