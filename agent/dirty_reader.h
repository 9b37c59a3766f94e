// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "agent/fd.h"
#include "agent/server.h"
#include "bigfile/commit.h"

// DirtyReader: what a frozen device holds, for a commit.
//
// The server's answer to `freeze` says where the dirty bytes are, and brings the file that has
// them: the layer of the overlay that stands still. So they go from the page cache to where they
// are encoded in one copy, by one system call each, and nobody else is woken for them. (Over the
// socket, by NBD, it were three copies and two threads.)
//
// R1  The file stands still until the device's next step; who makes the steps is the gate's holder,
//     who reads here. A server that died leaves the file as it was.
//
// Threads: extents() and read() from one thread at a time.

namespace zbig {

class DirtyReader : public DirtySource {
 public:
  // Freezes the device. Throws Busy if it is frozen already, and what Server::request throws.
  static DirtyReader freeze(const Server& server, const std::string& device);

  Tid base() const { return base_; }
  const ExtentList& extents() const override { return extents_; }
  std::uint64_t total_bytes() const { return total_bytes_; }
  void read(std::uint64_t offset, std::span<std::byte> out) override;

  // Leaves out what lies at `end` or after it.
  void end_at(std::uint64_t end);

  // `device`: for messages. `base`: of the writes, for the commit.
  DirtyReader(std::string device, Tid base, Fd file, ExtentList extents);

 private:
  std::string device_;
  Tid base_;
  Fd file_;
  ExtentList extents_;
  std::uint64_t total_bytes_ = 0;
};

}  // namespace zbig
