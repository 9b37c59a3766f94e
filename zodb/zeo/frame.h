// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "zodb/bytes.h"

// Frames: ZEO's unit on the wire, a length in four bytes and so many bytes of payload
// (docs/formats/zeo.md).
//
// A stream may be cut anywhere, also inside the length. Small frames are many (a reply to each
// load), so they are read many at a time into one buffer and then copied out; of a large one (a
// block) the rest goes where it stays, without that copy.
//
// F1  The length is a stranger's word: it is compared with kMaxFrame, and memory is taken in step
//     with the bytes that have really come, at most as much again.

namespace zbig::zeo {

// A payload, shared by whoever keeps a part of it: the cache keeps records in the frames that
// brought them.
struct Frame {
  std::shared_ptr<const std::byte[]> bytes;
  std::size_t size = 0;

  ByteView view() const { return {bytes.get(), size}; }
};

class FrameReader {
 public:
  // A block's record is as large as the block, plus some; nobody has blocks of this size over ZEO.
  static constexpr std::uint32_t kMaxFrame = 1u << 30;

  FrameReader();

  // Where the next bytes of the stream belong; never empty.
  std::span<std::byte> room();
  // So many bytes were put there. Calls `on_frame` for each frame that is complete, in their order.
  // Throws Corrupt for a length of zero or above kMaxFrame; then the stream is of no use any more.
  void advance(std::size_t size, const std::function<void(Frame)>& on_frame);
  // Is the stream between two frames?
  bool idle() const { return !body_ && have_ == 0; }

 private:
  static constexpr std::size_t kBuffer = 64u << 10;
  static constexpr std::size_t kAtOnce = 4u << 20;

  void begin_body(std::size_t length, ByteView start);
  void grow_body();

  std::unique_ptr<std::byte[]> buffer_;
  std::size_t have_ = 0;  // bytes in buffer_

  // A frame too large for the buffer, of which some has come.
  std::shared_ptr<std::byte[]> body_;
  std::size_t length_ = 0;    // of the whole
  std::size_t capacity_ = 0;  // of body_ as it is
  std::size_t filled_ = 0;
};

}  // namespace zbig::zeo
