// SPDX-License-Identifier: BSD-3-Clause
#include <cstdio>
#include <exception>
#include <iostream>

#include "bigfile/commit.h"
#include "tests/support/volume_lab.h"

// commit_driver DATABASE VOLUME FORMAT: one commit of scattered writes, for interop tests. Standard
// input is a sequence of "OFFSET LENGTH\n" and LENGTH bytes. Prints the tid, or nothing.

int main(int argc, char** argv) {
  using namespace zbig;
  try {
    if (argc != 4) throw Invalid("usage: commit_driver DATABASE VOLUME FORMAT");
    const auto format = parse_block_format(argv[3]);
    if (!format) throw Invalid("an unknown format");
    const auto storage = open_storage(argv[1], OpenMode::kWrite);
    test::BytesSource source;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    while (std::cin >> offset >> length && std::cin.get() == '\n') {
      Bytes bytes(length);
      std::cin.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(length));
      source.write(offset, bytes);
    }
    const Tid head = storage->last_tid();
    const VolumeCommit work{find_volume(*storage, argv[2], head), head, &source, *format};
    const auto result = commit(*storage, {&work, 1}, {}, {});
    if (result.tid) std::puts(result.tid->hex().c_str());
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "commit_driver: %s\n", error.what());
    return 1;
  }
}
