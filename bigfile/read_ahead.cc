// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/read_ahead.h"

#include <algorithm>

namespace zbig {

ReadAhead::ReadAhead(DirtySource& source, std::uint64_t blksize)
    : source_(source),
      blksize_(blksize),
      run_blocks_(std::max<std::uint64_t>(1, kRunBytes / blksize)) {
  const auto read = [this](const std::stop_token& stop) { read_all(stop); };
  if (is_little(source.extents())) {
    read({});
  } else {
    thread_ = std::jthread(read);
  }
}

// So little that the thread would cost more than it brings, in so few runs (as read_all makes them)
// that no buffer is waited for.
bool ReadAhead::is_little(const ExtentList& extents) const {
  std::uint64_t bytes = 0;
  std::uint64_t runs = 0;
  std::uint64_t run_end = 0;
  for (const Extent& extent : extents) {
    bytes += extent.length;
    if (bytes > kLittle) return false;
    for (std::uint64_t at = extent.offset; at < extent.end();
         at = std::min(extent.end(), run_end)) {
      if (at < run_end) continue;
      run_end = (at / blksize_ + run_blocks_) * blksize_;
      if (++runs > kBuffers) return false;
    }
  }
  return true;
}

ReadAhead::~ReadAhead() {
  thread_.request_stop();  // wakes wait_for_buffer
}

std::optional<DirtyRun> ReadAhead::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !ready_.empty() || done_; });
  if (ready_.empty()) {
    if (failure_) std::rethrow_exception(failure_);
    return std::nullopt;
  }
  DirtyRun run = std::move(ready_.front());
  ready_.pop_front();
  return run;
}

void ReadAhead::recycle(DirtyRun run) {
  const std::scoped_lock lock(mutex_);
  free_.push_back(std::move(run.bytes));
  changed_.notify_all();
}

// Nothing once the run is no longer wanted.
std::unique_ptr<std::byte[]> ReadAhead::wait_for_buffer(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, stop, [&] { return !free_.empty() || allocated_ < kBuffers; });
  if (stop.stop_requested()) return nullptr;
  if (free_.empty()) {
    ++allocated_;
    return std::make_unique_for_overwrite<std::byte[]>(run_blocks_ * blksize_);
  }
  std::unique_ptr<std::byte[]> buffer = std::move(free_.back());
  free_.pop_back();
  return buffer;
}

void ReadAhead::read_all(const std::stop_token& stop) {
  std::exception_ptr failure;
  try {
    const ExtentList& extents = source_.extents();
    // The next dirty byte that no run has yet.
    std::size_t index = 0;
    std::uint64_t at = extents.empty() ? 0 : extents[0].offset;
    while (index < extents.size()) {
      DirtyRun run;
      run.bytes = wait_for_buffer(stop);
      if (!run.bytes) return;
      run.first = at / blksize_;
      const std::uint64_t begin = run.first * blksize_;
      const std::uint64_t end = begin + run_blocks_ * blksize_;
      while (index < extents.size() && at < end) {
        const std::uint64_t length = std::min(extents[index].end(), end) - at;
        source_.read(at, {run.bytes.get() + (at - begin), length});
        run.dirty.push_back({at, length});
        at += length;
        if (at == extents[index].end() && ++index < extents.size()) at = extents[index].offset;
      }
      run.count = (run.dirty.back().end() - begin + blksize_ - 1) / blksize_;
      const std::scoped_lock lock(mutex_);
      ready_.push_back(std::move(run));
      changed_.notify_all();
    }
  } catch (...) {
    failure = std::current_exception();
  }
  const std::scoped_lock lock(mutex_);
  failure_ = failure;
  done_ = true;
  changed_.notify_all();
}

}  // namespace zbig
