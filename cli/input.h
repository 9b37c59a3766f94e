// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>

#include "bigfile/commit.h"
#include "bigfile/view.h"

// What `zbig import` reads: a file, a device, or a pipe.
//
// A commit wants to know in advance what is dirty, so a pipe is first copied to an unnamed
// temporary file (below $TMPDIR, /tmp if unset), whose space returns by itself however the program
// ends.

namespace zbig {

class Input {
 public:
  // "-" is standard input. Throws NotFound, Invalid for a directory, NoSpace, Failed.
  explicit Input(const std::string& file);
  ~Input();
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;

  std::uint64_t size() const { return size_; }
  // Throws Failed if the file has become shorter since it was opened.
  void read(std::uint64_t offset, std::span<std::byte> out) const;
  // The parts that are not holes of the file.
  ExtentList data_extents() const;

 private:
  void spool();
  void measure();

  std::string name_;
  int fd_ = -1;
  std::uint64_t size_ = 0;
};

// The file as the new content of [offset, offset + size) of a volume. Where both the file and the
// volume have a hole, nothing is dirty: a sparse file of terabytes imports as fast as its data.
// Only the last byte is, if the volume is to grow.
class InputSource final : public DirtySource {
 public:
  InputSource(const Input& input, std::uint64_t offset, const View& view);

  const ExtentList& extents() const override { return extents_; }
  void read(std::uint64_t offset, std::span<std::byte> out) override {
    input_.read(offset - offset_, out);
  }

 private:
  const Input& input_;
  std::uint64_t offset_;
  ExtentList extents_;
};

}  // namespace zbig
