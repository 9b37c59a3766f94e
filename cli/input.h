// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>

#include "bigfile/import.h"

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

  ImportFile file() const { return {fd_, name_, size_}; }

 private:
  void spool();
  void measure();

  std::string name_;
  int fd_ = -1;
  std::uint64_t size_ = 0;
};

}  // namespace zbig
