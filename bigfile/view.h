// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "bigfile/extent.h"
#include "bigfile/volume.h"

// View: one volume as of one tid. What a device shows where nothing is dirty.
//
// A read finds, for each block that it touches, the ZBlk in the volume's BTree, in the ZBlk where
// the payload is (ZBlk0: one run of bytes; ZBlk1: a chunk table), and reads exactly the bytes
// wanted from the storage into the caller's buffer. Nothing of a payload is kept. What is kept, in
// two small caches of bounded size, is the way to it: decoded tree nodes, and where the payloads of
// recently read blocks are (bigfile/objects.h).
//
// A view never changes. Time passes by `advance`: a new view that inherits what is still true from
// the caches of the old one, so that readers of the old one are not disturbed.

namespace zbig {

class View {
 public:
  // Throws NotFound if the volume does not exist at `at`, Corrupt, Unsupported if it is larger than
  // 2^63 - 1 bytes.
  static std::shared_ptr<const View> open(std::shared_ptr<const Storage> storage,
                                          const Volume& volume, Tid at);
  virtual ~View() = default;

  virtual const Volume& volume() const = 0;
  virtual Tid at() const = 0;

  // Of an array its bytes, of a bare file (last block + 1) * blksize (0 if it has none); in bytes.
  virtual std::uint64_t size() const = 0;

  // Fills `out` with the bytes from `offset`; holes, and what lies past the last block, read as
  // zeros. Any thread. Throws Corrupt (names block, object, tid and place), Unavailable.
  virtual void read(std::uint64_t offset, std::span<std::byte> out) const = 0;

  // The parts of [offset, offset + length) that are not holes: that some block covers. Reads tree
  // nodes only, so a block of zeros counts, and so does all of a ZBlk1.
  virtual ExtentList data_extents(std::uint64_t offset, std::uint64_t length) const = 0;

  // Brings the blocks under the range nearer: tells the storage what will be read soon, which may
  // start to load it. Waits for tree nodes at most.
  virtual void prefetch(std::uint64_t offset, std::uint64_t length) const = 0;

  // The view at `to`, given the oids that transactions in (at(), to] stored. Never a longer way
  // back: to >= at(). Throws NotFound if the volume is gone by then.
  virtual std::shared_ptr<const View> advance(Tid to, std::span<const Oid> changed) const = 0;
};

}  // namespace zbig
