// SPDX-License-Identifier: BSD-3-Clause
#include "nbdkit-plugin/overlay_layer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "zodb/error.h"

namespace zbig {
namespace {

std::string data_path(const std::string& directory, std::uint64_t number) {
  return directory + "/" + std::to_string(number) + ".data";
}
std::string bits_path(const std::string& directory, std::uint64_t number) {
  return directory + "/" + std::to_string(number) + ".bits";
}

}  // namespace

Layer::Layer(std::string directory, std::uint64_t number, File data, PageBitmap bits)
    : directory_(std::move(directory)),
      number_(number),
      data_(std::move(data)),
      bits_(std::move(bits)) {}

std::shared_ptr<Layer> Layer::create(const std::string& directory, std::uint64_t number,
                                     std::uint64_t size) {
  File data = File::open(data_path(directory, number), O_RDWR | O_CREAT | O_TRUNC);
  data.resize(size);
  File bits = File::open(bits_path(directory, number), O_RDWR | O_CREAT | O_TRUNC);
  return std::make_shared<Layer>(directory, number, std::move(data),
                                 PageBitmap::create(std::move(bits), number, size / kPageSize));
}

std::shared_ptr<Layer> Layer::load(const std::string& directory, std::uint64_t number,
                                   std::uint64_t size, Trust trust) {
  std::optional<File> data = File::open_if_there(data_path(directory, number), O_RDWR);
  std::optional<File> bits = File::open_if_there(bits_path(directory, number), O_RDWR);
  if (!data && !bits) return nullptr;
  if (!data) throw Corrupt(data_path(directory, number) + ": missing, though its bitmap is there");
  if (!bits) throw Corrupt(bits_path(directory, number) + ": missing, though its data are there");
  PageBitmap bitmap = PageBitmap::load(std::move(*bits), number, size / kPageSize, trust);
  const std::uint64_t have = data->size();
  if (have % kPageSize != 0 || have > size) {
    throw Corrupt(data->path() + ": " + std::to_string(have) + " bytes, of a device of " +
                  std::to_string(size));
  }
  const std::uint64_t whole = have / kPageSize;
  for (std::uint64_t page = whole; page < bitmap.pages();) {
    const PageBitmap::Run run = bitmap.run(page, bitmap.pages());
    if (run.set) {
      throw Corrupt(data->path() + ": ends at page " + std::to_string(whole) + ", but page " +
                    std::to_string(page) + " was written");
    }
    page += run.count;
  }
  data->resize(size);
  return std::make_shared<Layer>(directory, number, std::move(*data), std::move(bitmap));
}

std::shared_ptr<Layer> Layer::enlarged(std::uint64_t size) {
  std::shared_ptr<Layer> larger = load(directory_, number_, size, Trust::kLive);
  if (!larger) throw Corrupt("layer " + std::to_string(number_) + " of " + directory_ + " is gone");
  std::lock_guard lock(sync_mutex_);
  larger->sync_failed_ = sync_failed_;  // L2
  return larger;
}

std::uint64_t Layer::bytes_on_disk() const {
  return data_.bytes_on_disk() + bits_.file().bytes_on_disk();
}

void Layer::write(std::uint64_t first, std::span<const ByteView> parts) {
  std::uint64_t length = 0;
  for (const ByteView part : parts) length += part.size();
  invariant(length % kPageSize == 0, "a layer is written in whole pages");
  data_.write(first * kPageSize, parts);
  data_unsynced_.store(true, std::memory_order_release);
  bits_.set(first, length / kPageSize);  // L1
}

void Layer::zero(std::uint64_t first, std::uint64_t count) {
  data_.zero(first * kPageSize, count * kPageSize);
  data_unsynced_.store(true, std::memory_order_release);
  bits_.set(first, count);
}

void Layer::absorb(const Layer& above) {
  std::vector<std::byte> buffer(256u << 10);
  for (std::uint64_t page = 0; page < above.bits_.pages();) {
    const PageBitmap::Run run = above.bits_.run(page, above.bits_.pages());
    const std::uint64_t run_end = (page + run.count) * kPageSize;
    for (std::uint64_t at = page * kPageSize; run.set && at < run_end;) {
      const auto data = above.data_.next_data(at, run_end);
      // Holes stay holes: a trimmed terabyte costs nothing. A hole smaller than a page is data.
      const std::uint64_t data_begin =
          data ? std::max(at, data->first / kPageSize * kPageSize) : run_end;
      if (data_begin > at) zero(at / kPageSize, (data_begin - at) / kPageSize);
      const std::uint64_t data_end =
          data ? std::min(run_end, (data->second + kPageSize - 1) / kPageSize * kPageSize)
               : run_end;
      for (at = data_begin; at < data_end;) {
        const auto piece =
            std::span(buffer).first(std::min<std::uint64_t>(buffer.size(), data_end - at));
        above.data_.read(at, piece);
        const ByteView part = piece;
        write(at / kPageSize, std::span(&part, 1));
        at += piece.size();
      }
    }
    page += run.count;
  }
}

void Layer::sync() {
  constexpr std::size_t kBatch = 1024;  // 4 MiB of bitmap, for 128 GiB of device
  std::lock_guard lock(sync_mutex_);
  if (sync_failed_) {
    throw Failed("sync layer " + std::to_string(number_) + " of " + directory_ +
                 ": an earlier sync failed, what was written before it may be lost");
  }
  sync_failed_ = true;  // until it has succeeded
  bool bits_written = false;
  for (;;) {
    const auto batch = bits_.take_unsynced(kBatch);
    if (data_unsynced_.exchange(false, std::memory_order_acq_rel)) data_.datasync();
    if (batch.empty()) break;
    bits_.write_durable(batch);  // B2
    bits_written = true;
    if (batch.size() < kBatch) break;
  }
  if (bits_written) bits_.file().datasync();
  sync_failed_ = false;
}

void Layer::unlink(const std::string& directory, std::uint64_t number) {
  for (const std::string& path : {data_path(directory, number), bits_path(directory, number)}) {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw_errno("remove " + path, errno);
  }
}

}  // namespace zbig
