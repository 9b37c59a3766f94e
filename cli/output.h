// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "zodb/bytes.h"

// Where `zbig export` writes: a file that appears whole or not at all, or standard output.
//
// O1  A FILE that is a regular file, or does not exist, is written beside its name and renamed over
//     it when everything is on disk. A failure or Ctrl-C leaves what was there before.
// O2  Zeros become holes where the target is a regular file; everywhere else they are written.
// O3  A FILE that is a device or a pipe is written in place, and a terminal is refused.

namespace zbig {

class Output {
 public:
  // For exactly `size` bytes; "-" is standard output. Throws Invalid for a directory or a terminal,
  // NoSpace for a size that the file system cannot hold.
  Output(const std::string& file, std::uint64_t size);
  ~Output();
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  void write(ByteView bytes);
  void zeros(std::uint64_t length);
  // To be called after the last byte: the file is complete and on disk when it returns.
  void finish();

 private:
  void open_file(const std::string& file);
  void open_stdout();
  void write_at_position(ByteView bytes);
  [[noreturn]] void fail(const std::string& what) const;

  std::string name_;       // as messages name it
  std::string target_;     // of a regular file: the name that it gets at the end
  std::string temporary_;  // its name until then
  int fd_ = -1;
  bool owned_ = false;   // whether fd_ is ours to close
  bool sparse_ = false;  // O2
  std::uint64_t base_ = 0;
  std::uint64_t position_ = 0;
};

}  // namespace zbig
