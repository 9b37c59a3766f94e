// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include <stdlib.h>

#include "zodb/bytes.h"
#include "zodb/error.h"

// Files of a fuzzer.

namespace zbig {

// One folder of the process, in memory where there is one.
class Place {
 public:
  Place() {
    std::string name = std::filesystem::is_directory("/dev/shm") ? "/dev/shm/fuzz-zbig-XXXXXX"
                                                                 : "/tmp/fuzz-zbig-XXXXXX";
    invariant(::mkdtemp(name.data()) != nullptr, "a folder for the fuzzer can be made");
    folder_ = name;
  }
  ~Place() { std::filesystem::remove_all(folder_); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  std::string operator/(const std::string& name) const { return (folder_ / name).string(); }
  void clear() const {
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      std::filesystem::remove_all(entry);
    }
  }
  static void put(const std::string& path, ByteView bytes) {
    std::ofstream(path, std::ios::binary)
        .write(as_text(bytes).data(), static_cast<std::streamsize>(bytes.size()));
  }

 private:
  std::filesystem::path folder_;
};

}  // namespace zbig
