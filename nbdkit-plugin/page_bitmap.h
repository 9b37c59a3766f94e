// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "bigfile/extent.h"
#include "nbdkit-plugin/file.h"

// PageBitmap: which pages of a layer of an overlay hold data; one bit a page, in memory and in a
// file.
//
// The file keeps every bit twice, for the two ways in which a server can end.
//
// The *live* copy is written with each change. After `kill -9` it is exact, since the page cache
// outlives the process. After a loss of power it is worthless: the kernel writes files back in an
// order of its own, so a live bit may have reached the disk when the page it speaks of has not, and
// the page would read as zeros. The *durable* copy is written by a flush only, after the data were
// synced. So whoever opens the file after a reboot (another boot id) trusts the durable copy, and
// otherwise the live one.
//
// B1  A bit in memory is set only after it is set in the live copy.
// B2  A bit is set in the durable copy only after the data of its page are on the disk (the owner
//     syncs them between take_unsynced() and write_durable()).
// B3  Bits are never cleared, so a block of the file that is torn by a loss of power is still true.
//
// The bits are written with pwrite and kept in memory of our own, rather than in a shared mapping:
// a full disk or a bad sector is an error to answer then, not a SIGBUS that ends the server.
//
// File: a header of 4096 bytes that names the layer, then for each block of 32768 pages (128 MiB)
// the durable and the live copy, 4096 bytes each, in the machine's byte order. Mostly a hole.
//
// Threads: any for reading; set() by one thread at a time for the same word (64 pages).

namespace zbig {

class PageBitmap {
 public:
  enum class Trust { kLive, kDurable };

  // Makes the file's content anew.
  static PageBitmap create(File file, std::uint64_t layer, std::uint64_t pages);
  // Throws Corrupt if the file is not the bitmap of this layer and of at most that many pages. One
  // of fewer pages grows.
  static PageBitmap load(File file, std::uint64_t layer, std::uint64_t pages, Trust trust);

  std::uint64_t pages() const { return pages_; }
  // How many bits are set.
  std::uint64_t count() const { return shared_->count.load(std::memory_order_acquire); }

  // The longest run of equal bits that starts at `first`, up to `limit` > first.
  struct Run {
    bool set = false;
    std::uint64_t count = 0;
  };
  Run run(std::uint64_t first, std::uint64_t limit) const;

  // Throws NoSpace and the like; the bits in memory are then as they were.
  void set(std::uint64_t first, std::uint64_t count);

  // Blocks that changed since they were last taken, at most `limit`.
  struct BlockCopy {
    std::uint64_t block = 0;
    std::vector<std::uint64_t> words;
  };
  std::vector<BlockCopy> take_unsynced(std::size_t limit);
  void write_durable(const std::vector<BlockCopy>& blocks) const;

  const File& file() const { return file_; }

  static constexpr std::uint64_t kWordPages = 64;
  static constexpr std::uint64_t kHeaderBytes = 4096;

 private:
  // Anonymous memory that is zero until it is touched: an overlay of terabytes costs what is dirty.
  struct Unmap {
    std::size_t length;
    void operator()(std::uint64_t* words) const;
  };
  struct Shared {
    std::atomic<std::uint64_t> count = 0;
  };

  PageBitmap(File file, std::uint64_t pages);
  void load_block(std::uint64_t block, Trust trust);
  void set_in_block(std::uint64_t block, std::uint64_t first, std::uint64_t count);
  std::atomic_ref<std::uint64_t> word(std::uint64_t index) const {
    return std::atomic_ref<std::uint64_t>(words_.get()[index]);
  }
  std::atomic_ref<std::uint8_t> flags(std::uint64_t block) const {
    return std::atomic_ref<std::uint8_t>(flags_[block]);
  }

  File file_;
  std::uint64_t pages_;
  std::uint64_t blocks_;
  std::unique_ptr<std::uint64_t, Unmap> words_;
  mutable std::vector<std::uint8_t> flags_;  // of each block: any bit set; not in the durable copy
  std::unique_ptr<Shared> shared_ = std::make_unique<Shared>();
};

}  // namespace zbig
