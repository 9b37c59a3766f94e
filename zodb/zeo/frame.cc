// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/frame.h"

#include <algorithm>
#include <cstring>

#include "zodb/error.h"

namespace zbig::zeo {

namespace {
constexpr std::size_t kPrefix = 4;
}

FrameReader::FrameReader() : buffer_(std::make_unique_for_overwrite<std::byte[]>(kBuffer)) {}

std::span<std::byte> FrameReader::room() {
  if (body_) return {body_.get() + filled_, capacity_ - filled_};
  return {buffer_.get() + have_, kBuffer - have_};
}

void FrameReader::begin_body(std::size_t length, ByteView start) {
  length_ = length;
  capacity_ = std::min(length, kAtOnce);
  body_ = std::make_shared_for_overwrite<std::byte[]>(capacity_);
  filled_ = start.size();
  std::memcpy(body_.get(), start.data(), start.size());
}

void FrameReader::grow_body() {  // F1
  const std::size_t capacity = std::min(length_, 2 * capacity_);
  auto grown = std::make_shared_for_overwrite<std::byte[]>(capacity);
  std::memcpy(grown.get(), body_.get(), filled_);
  body_ = std::move(grown);
  capacity_ = capacity;
}

void FrameReader::advance(std::size_t size, const std::function<void(Frame)>& on_frame) {
  invariant(size <= room().size(), "a stream gives no more bytes than there is room for");
  if (body_) {
    filled_ += size;
    if (filled_ == length_) {
      on_frame({std::move(body_), length_});
      body_.reset();
    } else if (filled_ == capacity_) {
      grow_body();
    }
    return;
  }
  have_ += size;
  std::size_t at = 0;
  while (have_ - at >= kPrefix) {
    const std::size_t length = get_be<kPrefix>(buffer_.get() + at);
    if (length == 0 || length > kMaxFrame) {
      throw Corrupt("a message of " + std::to_string(length) + " bytes, where 1 to " +
                    std::to_string(kMaxFrame) + " are possible");
    }
    const std::size_t there = have_ - at - kPrefix;
    if (there < length) {
      if (kPrefix + length <= kBuffer) break;
      begin_body(length, {buffer_.get() + at + kPrefix, there});
      have_ = at = 0;
      return;
    }
    auto bytes = std::make_shared_for_overwrite<std::byte[]>(length);
    std::memcpy(bytes.get(), buffer_.get() + at + kPrefix, length);
    at += kPrefix + length;
    on_frame({std::move(bytes), length});
  }
  std::memmove(buffer_.get(), buffer_.get() + at, have_ - at);
  have_ -= at;
}

}  // namespace zbig::zeo
