// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/read_ahead.h"

#include <algorithm>
#include <random>

#include <gtest/gtest.h>

namespace zbig {
namespace {

std::byte byte_at(std::uint64_t offset) { return static_cast<std::byte>(offset * 31 / 7); }

class Numbers final : public DirtySource {
 public:
  explicit Numbers(ExtentList extents) : extents_(std::move(extents)) {}
  const ExtentList& extents() const override { return extents_; }
  void read(std::uint64_t offset, std::span<std::byte> out) override {
    EXPECT_GE(offset, last_);  // I2
    last_ = offset + out.size();
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = byte_at(offset + i);
  }

 private:
  ExtentList extents_;
  std::uint64_t last_ = 0;
};

// Takes every run, and gives back what was dirty in them.
ExtentList take_all(const ExtentList& extents, std::uint64_t blksize) {
  Numbers source(extents);
  ReadAhead ahead(source, blksize);
  ExtentList got;
  while (auto run = ahead.next()) {
    for (const Extent& part : run->dirty) {
      EXPECT_GE(part.offset, run->first * blksize);
      EXPECT_LE(part.end(), (run->first + run->count) * blksize);
      for (std::uint64_t at = part.offset; at < part.end(); ++at) {
        EXPECT_EQ(run->bytes[at - run->first * blksize], byte_at(at));
      }
      if (!got.empty() && got.back().end() == part.offset) {
        got.back().length += part.length;
      } else {
        got.push_back(part);
      }
    }
    ahead.recycle(std::move(*run));
  }
  return got;
}

TEST(ReadAhead, Next_NothingDirty_Ends) { EXPECT_TRUE(take_all({}, 4096).empty()); }

// Few pages are read without the thread: where runs begin and end must not make it wait for a
// buffer that nobody can give back.
TEST(ReadAhead, Next_FewPagesAcrossTheEndsOfRuns_AllCome) {
  constexpr std::uint64_t kRun = 2u << 20;
  for (const std::uint64_t blksize : {std::uint64_t{5000}, kRun / 512, kRun / 2, kRun, 2 * kRun}) {
    for (std::size_t count = 1; count <= 8; ++count) {
      ExtentList extents;
      for (std::uint64_t i = 1; i <= count; ++i) extents.push_back({i * kRun - 2048, 4096});
      EXPECT_EQ(take_all(extents, blksize), extents) << blksize << " " << count;
    }
  }
}

TEST(ReadAhead, Next_RandomExtents_AllCome) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 30; ++round) {
    ExtentList extents;
    std::uint64_t at = 0;
    for (std::uint64_t n = random() % 20; n-- > 0;) {
      at += 1 + random() % (3u << 20);
      const std::uint64_t length = 1 + random() % (round % 2 ? 100u : 3u << 20);
      extents.push_back({at, length});
      at += length;
    }
    EXPECT_EQ(take_all(extents, 1 + random() % (4u << 20)), extents) << round;
  }
}

}  // namespace
}  // namespace zbig
