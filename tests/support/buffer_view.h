// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "bigfile/view.h"

// A view without a database.

namespace zbig {

// A view of `bytes`, all of it data.
class BufferView : public View {
 public:
  BufferView(Tid at, std::vector<std::byte> bytes) : at_(at), bytes_(std::move(bytes)) {}
  // `size` bytes of a pattern that no other seed gives.
  static std::shared_ptr<const View> of_pattern(Tid at, std::size_t size, unsigned seed) {
    std::vector<std::byte> bytes(size);
    for (std::size_t i = 0; i < size; ++i)
      bytes[i] = std::byte(1 + (i / 7 + i / 4096 + seed) % 255);
    return std::make_shared<BufferView>(at, std::move(bytes));
  }

  const Volume& volume() const override { return volume_; }
  Tid at() const override { return at_; }
  std::uint64_t size() const override { return bytes_.size(); }
  void read(std::uint64_t offset, std::span<std::byte> out) const override {
    std::fill(out.begin(), out.end(), std::byte{0});
    if (offset < bytes_.size()) {
      std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(offset),
                  std::min(out.size(), bytes_.size() - offset), out.begin());
    }
  }
  ExtentList data_extents(std::uint64_t offset, std::uint64_t length) const override {
    return clipped({{0, bytes_.size()}}, offset, length);
  }
  void prefetch(std::uint64_t, std::uint64_t) const override {}
  std::shared_ptr<const View> advance(Tid to, std::span<const Oid>) const override {
    return std::make_shared<BufferView>(to, bytes_);
  }

 private:
  Volume volume_;
  Tid at_;
  std::vector<std::byte> bytes_;
};

}  // namespace zbig
