// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "zodb/bytes.h"
#include "zodb/pickle_value.h"

// PickleReader: pickles of protocols 0 to 3 into values.
//
// A ZODB record is two pickles, of the class and of the state, one behind the other, written by one
// pickler that kept its memo: the second refers to what the first has named. So one reader reads
// both, and keeps its memo between them. Extensions of transactions are single pickles.
// docs/formats/pickle.md shows it byte by byte.
//
// The input is a stranger's. Time and memory are linear in its size and capped; nothing recurses.
//
// R1  Every length is compared with what is left of the input before anything is made of it.
// R2  A memo index is less than the size of the input; the number of values is capped at
//     kMaxValues.
// R3  Containers nest at most kMaxDepth deep.
// Whoever breaks one gets Corrupt, which names the offset.

namespace zbig {

class PickleReader {
 public:
  static constexpr std::size_t kMaxValues = 2u << 20;  // of some 60 bytes each
  static constexpr std::uint32_t kMaxDepth = 1000;

  // The input must outlive the reader, and the reader its values.
  explicit PickleReader(ByteView input);
  ~PickleReader();
  PickleReader(PickleReader&&) noexcept;
  PickleReader& operator=(PickleReader&&) noexcept;

  // The next pickle, up to its STOP. Throws Corrupt.
  Value next();
  std::size_t offset() const;  // behind the last pickle read
  bool at_end() const;

 private:
  class Machine;
  std::unique_ptr<Machine> machine_;
};

}  // namespace zbig
