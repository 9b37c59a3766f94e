// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "nbdkit-plugin/file.h"
#include "nbdkit-plugin/page_bitmap.h"

// One layer of an overlay: the pages that were written in some span of time. Two files in the
// overlay's directory: N.data, sparse and as large as the device, each page at its own offset; and
// N.bits, which pages count (see PageBitmap). A page that was zeroed is a hole with its bit set.
//
// L1  A page's bit is set only after the whole page was written: a reader who sees the bit sees the
//     page, and a crash leaves a page as it was or as it is to be.
// L2  After sync() the pages that were written before it survive a loss of power. If it failed
//     once, it fails for ever: the kernel forgets what it could not write, and would report success
//     the next time.
//
// Threads: any; no two may write to the same 64 pages at once.

namespace zbig {

class Layer {
 public:
  using Trust = PageBitmap::Trust;

  // Makes an empty layer, over whatever an earlier crash left under its name.
  static std::shared_ptr<Layer> create(const std::string& directory, std::uint64_t number,
                                       std::uint64_t size);
  // Nothing if neither file is there; Corrupt if one is, or if they are damaged.
  static std::shared_ptr<Layer> load(const std::string& directory, std::uint64_t number,
                                     std::uint64_t size, Trust trust);
  Layer(std::string directory, std::uint64_t number, File data, PageBitmap bits);
  // The same layer for a larger device, by other descriptors. Nobody may write to this one or sync
  // it from now on; who reads it goes on.
  std::shared_ptr<Layer> enlarged(std::uint64_t size);

  std::uint64_t number() const { return number_; }
  const PageBitmap& bits() const { return bits_; }
  const File& data() const { return data_; }
  bool empty() const { return bits_.count() == 0; }
  std::uint64_t bytes_on_disk() const;

  // Bytes of pages whose bits are set.
  void read(std::uint64_t offset, std::span<std::byte> out) const { data_.read(offset, out); }
  // Whole pages, from `first` on: the parts together.
  void write(std::uint64_t first, std::span<const ByteView> parts);
  void zero(std::uint64_t first, std::uint64_t count);
  // Takes over every page of `above`, which must not be written meanwhile. May be repeated.
  void absorb(const Layer& above);

  void sync();

  // Removes the files' names; whoever still reads goes on.
  static void unlink(const std::string& directory, std::uint64_t number);

 private:
  const std::string directory_;
  const std::uint64_t number_;
  File data_;
  PageBitmap bits_;
  std::atomic<bool> data_unsynced_ = true;

  std::mutex sync_mutex_;
  bool sync_failed_ = false;  // guarded by sync_mutex_
};

}  // namespace zbig
