// SPDX-License-Identifier: BSD-3-Clause
#include "nbdkit-plugin/page_bitmap.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>

#include <sys/mman.h>

#include "zodb/error.h"

namespace zbig {
namespace {

constexpr std::uint64_t kCopyBytes = 4096;
constexpr std::uint64_t kHeaderBytes = PageBitmap::kHeaderBytes;
constexpr std::uint64_t kBlockWords = kCopyBytes / sizeof(std::uint64_t);
constexpr std::uint64_t kBlockPages = kBlockWords * PageBitmap::kWordPages;

constexpr std::uint8_t kUsed = 1;
constexpr std::uint8_t kUnsynced = 2;

std::uint64_t durable_at(std::uint64_t block) { return kHeaderBytes + block * 2 * kCopyBytes; }
std::uint64_t live_at(std::uint64_t block) { return durable_at(block) + kCopyBytes; }

std::string header_of(std::uint64_t layer) {
  std::string text = "zbig overlay bitmap 1\nlayer " + std::to_string(layer) + "\n";
  text.resize(kHeaderBytes);
  return text;
}

// Bits [first, first + count) of a word.
std::uint64_t mask_of(std::uint64_t first, std::uint64_t count) {
  const std::uint64_t ones = count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
  return ones << first;
}

}  // namespace

void PageBitmap::Unmap::operator()(std::uint64_t* words) const { munmap(words, length); }

PageBitmap::PageBitmap(File file, std::uint64_t pages)
    : file_(std::move(file)),
      pages_(pages),
      blocks_((pages + kBlockPages - 1) / kBlockPages),
      words_(nullptr, Unmap{0}),
      flags_(blocks_) {
  const std::size_t length = std::max<std::uint64_t>(blocks_, 1) * kCopyBytes;
  void* memory = mmap(nullptr, length, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw_errno("reserve memory for " + file_.path(), errno);
  words_ = {static_cast<std::uint64_t*>(memory), Unmap{length}};
}

PageBitmap PageBitmap::create(File file, std::uint64_t layer, std::uint64_t pages) {
  PageBitmap bitmap(std::move(file), pages);
  bitmap.file_.write(0, as_bytes(header_of(layer)));
  bitmap.file_.resize(durable_at(bitmap.blocks_));
  return bitmap;
}

PageBitmap PageBitmap::load(File file, std::uint64_t layer, std::uint64_t pages, Trust trust) {
  PageBitmap bitmap(std::move(file), pages);
  const File& f = bitmap.file_;
  std::string header(kHeaderBytes, '\0');
  f.read(0, std::as_writable_bytes(std::span(header)));
  if (header != header_of(layer)) {
    throw Corrupt(f.path() + ": not the bitmap of layer " + std::to_string(layer));
  }
  const std::uint64_t size = f.size();
  const std::uint64_t full = durable_at(bitmap.blocks_);
  if (size > full || (size - kHeaderBytes) % (2 * kCopyBytes) != 0) {
    throw Corrupt(f.path() + ": " + std::to_string(size) + " bytes, where " + std::to_string(full) +
                  " are right");
  }
  for (std::uint64_t at = kHeaderBytes; at < size;) {
    const auto data = f.next_data(at, size);
    if (!data) break;
    const std::uint64_t block = (data->first - kHeaderBytes) / (2 * kCopyBytes);
    bitmap.load_block(block, trust);
    at = durable_at(block + 1);
  }
  f.resize(full);
  return bitmap;
}

void PageBitmap::load_block(std::uint64_t block, Trust trust) {
  std::array<std::array<std::uint64_t, kBlockWords>, 2> copies{};
  file_.read(durable_at(block), std::as_writable_bytes(std::span(copies)));
  const auto& chosen = copies[trust == Trust::kLive ? 1 : 0];
  std::uint64_t count = 0;
  for (std::uint64_t i = 0; i < kBlockWords; ++i) {
    if (chosen[i] == 0) continue;
    const std::uint64_t last = block * kBlockPages + i * kWordPages + kWordPages - 1 -
                               static_cast<std::uint64_t>(std::countl_zero(chosen[i]));
    if (last >= pages_) {
      throw Corrupt(file_.path() + ": page " + std::to_string(last) + " of " +
                    std::to_string(pages_) + " is marked");
    }
    words_.get()[block * kBlockWords + i] = chosen[i];
    count += static_cast<std::uint64_t>(std::popcount(chosen[i]));
  }
  if (copies[1] != chosen) file_.write(live_at(block), std::as_bytes(std::span(chosen)));
  if (count > 0) flags_[block] |= kUsed;
  if (copies[0] != chosen) flags_[block] |= kUnsynced;
  shared_->count += count;
}

PageBitmap::Run PageBitmap::run(std::uint64_t first, std::uint64_t limit) const {
  Run run;
  for (std::uint64_t page = first; page < limit;) {
    const std::uint64_t block = page / kBlockPages;
    std::uint64_t step = 0;   // pages looked at
    std::uint64_t equal = 0;  // of them, how many from the first on are as the run
    if ((flags(block).load(std::memory_order_acquire) & kUsed) == 0) {
      if (page == first) run.set = false;
      step = (block + 1) * kBlockPages - page;
      equal = run.set ? 0 : step;
    } else {
      // One load decides: another thread may be setting bits.
      const std::uint64_t bits =
          word(page / kWordPages).load(std::memory_order_acquire) >> (page % kWordPages);
      step = kWordPages - page % kWordPages;
      if (page == first) run.set = (bits & 1) != 0;
      equal = std::min(step, static_cast<std::uint64_t>(run.set ? std::countr_one(bits)
                                                                : std::countr_zero(bits)));
    }
    run.count += equal;
    if (equal < step) break;
    page += step;
  }
  run.count = std::min(run.count, limit - first);
  return run;
}

void PageBitmap::set(std::uint64_t first, std::uint64_t count) {
  while (count > 0) {
    const std::uint64_t within = first % kBlockPages;
    const std::uint64_t step = std::min(count, kBlockPages - within);
    set_in_block(first / kBlockPages, within, step);
    first += step;
    count -= step;
  }
}

void PageBitmap::set_in_block(std::uint64_t block, std::uint64_t first, std::uint64_t count) {
  const std::uint64_t first_word = first / kWordPages;
  const std::uint64_t end_word = (first + count - 1) / kWordPages + 1;
  std::array<std::uint64_t, kBlockWords> fresh;
  std::uint64_t added = 0;
  for (std::uint64_t w = first_word; w < end_word; ++w) {
    const std::uint64_t begin = std::max(first, w * kWordPages);
    const std::uint64_t end = std::min(first + count, (w + 1) * kWordPages);
    const std::uint64_t old = word(block * kBlockWords + w).load(std::memory_order_relaxed);
    fresh[w] = old | mask_of(begin - w * kWordPages, end - begin);
    added += static_cast<std::uint64_t>(std::popcount(fresh[w] & ~old));
  }
  if (added == 0) return;
  if ((flags(block).load(std::memory_order_acquire) & kUsed) == 0) {
    // Room for the other copy too: a flush must not find the disk full.
    file_.allocate(durable_at(block), 2 * kCopyBytes);
  }
  file_.write(live_at(block) + first_word * sizeof(std::uint64_t),
              std::as_bytes(std::span(fresh).subspan(first_word, end_word - first_word)));  // B1
  for (std::uint64_t w = first_word; w < end_word; ++w) {
    word(block * kBlockWords + w).store(fresh[w], std::memory_order_release);
  }
  flags(block).fetch_or(kUsed | kUnsynced, std::memory_order_acq_rel);
  shared_->count.fetch_add(added, std::memory_order_acq_rel);
}

std::vector<PageBitmap::BlockCopy> PageBitmap::take_unsynced(std::size_t limit) {
  std::vector<BlockCopy> copies;
  for (std::uint64_t block = 0; block < blocks_ && copies.size() < limit; ++block) {
    if ((flags(block).load(std::memory_order_acquire) & kUnsynced) == 0) continue;
    // Cleared before the words are read: a bit that comes later sets it again.
    flags(block).fetch_and(static_cast<std::uint8_t>(~kUnsynced), std::memory_order_acq_rel);
    BlockCopy copy{block, std::vector<std::uint64_t>(kBlockWords)};
    for (std::uint64_t w = 0; w < kBlockWords; ++w) {
      copy.words[w] = word(block * kBlockWords + w).load(std::memory_order_acquire);
    }
    copies.push_back(std::move(copy));
  }
  return copies;
}

void PageBitmap::write_durable(const std::vector<BlockCopy>& blocks) const {
  for (const BlockCopy& copy : blocks) {
    file_.write(durable_at(copy.block), std::as_bytes(std::span(copy.words)));
  }
}

}  // namespace zbig
