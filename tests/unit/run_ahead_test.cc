// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/run_ahead.h"

#include <algorithm>
#include <random>
#include <vector>

#include <gtest/gtest.h>

namespace zbig {
namespace {

constexpr std::uint64_t kBlock = 1 << 20;  // so that 8 are ahead

TEST(RunAhead, BlockAfterBlock_SaysEachOnceAndInTime) {
  RunAhead run(kBlock);
  run.reads(100, 100);
  std::uint64_t said = 101;
  for (std::uint64_t block = 101; block < 200; ++block) {
    for (int part = 0; part < 4; ++part) {
      if (const auto next = run.reads(block, block)) {
        EXPECT_EQ(part, 0);
        EXPECT_GE(next->first, said);
        EXPECT_LE(next->first, std::max(said, block + 1));
        said = next->first + next->count;
      }
    }
    EXPECT_GT(said, block + 4);
    EXPECT_LE(said, block + 9);
  }
}

TEST(RunAhead, NotQuiteInOrder_IsStillARun) {
  RunAhead run(kBlock);
  std::mt19937 random(1);
  std::vector<std::uint64_t> blocks(400);
  for (std::uint64_t i = 0; i < blocks.size(); ++i) blocks[i] = 1000 + i;
  for (std::size_t i = 0; i + 4 < blocks.size(); i += 2) {
    std::swap(blocks[i], blocks[i + random() % 4]);
  }
  std::uint64_t count = 0;
  for (const std::uint64_t block : blocks) {
    if (const auto next = run.reads(block, block)) count += next->count;
  }
  EXPECT_GT(count, 380u);
  EXPECT_LT(count, 420u);
}

TEST(RunAhead, RandomReads_SayNothing) {
  RunAhead run(kBlock);
  std::mt19937_64 random(2);
  for (int i = 0; i < 10000; ++i) {
    const std::uint64_t block = random() % (std::uint64_t{1} << 40);
    EXPECT_FALSE(run.reads(block, block));
  }
}

TEST(RunAhead, TinyAndHugeBlocks_HaveAWindow) {
  for (const std::uint64_t blksize : {std::uint64_t{1}, std::uint64_t{1} << 40}) {
    RunAhead run(blksize);
    run.reads(0, 0);
    const auto next = run.reads(1, 1);
    ASSERT_TRUE(next);
    EXPECT_GE(next->count, 2u);
    EXPECT_LE(next->count, 1024u);
  }
}

}  // namespace
}  // namespace zbig
