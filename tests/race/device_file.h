// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "agent/fd.h"
#include "tests/race/ledger.h"

// DeviceFile: a device as a program has it open, in all the ways at once. One thread.

namespace zbig::race {

enum class Way { kRead, kMapping, kLocked, kDirect };
inline constexpr Way kWays[] = {Way::kRead, Way::kMapping, Way::kLocked, Way::kDirect};
const char* name_of(Way way);

class DeviceFile {
 public:
  static constexpr std::size_t kPage = 4096;

  // The first `size` bytes of it.
  DeviceFile(const std::string& node, std::size_t size, bool writable);
  ~DeviceFile();
  DeviceFile(const DeviceFile&) = delete;
  DeviceFile& operator=(const DeviceFile&) = delete;

  // For Way::kLocked: the page stays in memory, as far as the program can say that.
  void lock(std::uint64_t offset);

  Word read(std::uint64_t offset, Way way);
  // A page by one call of read(2) or one direct request: kRead and kDirect. Valid until the next.
  const std::byte* read_page(std::uint64_t page, Way way);
  // Way::kDirect writes the whole page, with what else there is in it.
  void write(std::uint64_t offset, Word word, Way way);
  void sync();

 private:
  Word* mapped(std::uint64_t offset) const;

  std::string node_;
  std::size_t size_;
  Fd file_;
  Fd direct_;
  void* map_ = nullptr;
  void* locked_ = nullptr;  // a second mapping, so that one that is not locked remains
  std::byte* buffer_ = nullptr;
};

}  // namespace zbig::race
