// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

// Buffers for what the kernel sends or reads, all of a pool of one size. They are given out again
// rather than freed, because the C library returns blocks of a MiB to the kernel, and touching
// fresh ones again costs as much as copying the data.
//
// Those for messages are allocated by libfuse (it alone knows how large a message may be), so
// buffers are freed by free().

namespace zbig::fuse {

class BufferPool {
 public:
  struct Free {
    // NOLINTNEXTLINE(cppcoreguidelines-no-malloc,cppcoreguidelines-owning-memory): libfuse's
    void operator()(void* memory) const { std::free(memory); }
  };
  using Buffer = std::unique_ptr<void, Free>;

  // nullptr if there is none to spare.
  Buffer take() {
    if (spare_.empty()) return nullptr;
    Buffer buffer = std::move(spare_.back());
    spare_.pop_back();
    return buffer;
  }
  void give_back(Buffer buffer) {
    if (buffer && spare_.size() < kMaxSpare) spare_.push_back(std::move(buffer));
  }

 private:
  static constexpr std::size_t kMaxSpare = 32;
  std::vector<Buffer> spare_;
};

}  // namespace zbig::fuse
