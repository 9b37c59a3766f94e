// SPDX-License-Identifier: BSD-3-Clause
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bigfile/commit.h"
#include "tests/support/memory_storage.h"
#include "tests/support/volume_lab.h"

// A commit that merges (bigfile/block_merge.h): two clients change one block, in the formats that
// there are; and a commit that knows which transactions are its own.

namespace zbig {
namespace {

using test::MemoryStorage;
using test::noise;
using test::VolumeLab;

constexpr std::uint64_t kBlock = 65536;
constexpr std::uint64_t kPages = kBlock / kPageSize;

struct Formats {
  BlockFormat others;
  BlockFormat own;
};

class Merge : public ::testing::TestWithParam<Formats> {
 protected:
  void SetUp() override {
    lab_.write_block(0, noise(1, kBlock));
    lab_.write_block(2, noise(2, 3 * kPageSize));
    lab_.commit(GetParam().others);
    base_ = lab_.at();
    model_ = bytes();
  }

  // Commits writes made on the state at `base`.
  CommitResult commit(test::BytesSource& source, Tid base, BlockFormat format, bool merge,
                      std::set<Tid> own = {}) {
    const VolumeCommit work{find_volume(*storage_, "/a", storage_->last_tid()),
                            base,
                            &source,
                            format,
                            merge,
                            std::move(own)};
    return zbig::commit(*storage_, {&work, 1}, {"eve", "theirs", {}}, {});
  }
  Tid others_commit(test::BytesSource& source) {
    return *commit(source, storage_->last_tid(), GetParam().others, false).tid;
  }
  CommitResult own_commit(test::BytesSource& source, bool merge = true) {
    return commit(source, base_, GetParam().own, merge);
  }
  Bytes bytes() {
    lab_.refresh();
    Bytes found(4 * kBlock);
    lab_.view().read(0, found);
    return found;
  }
  void put(std::uint64_t offset, const Bytes& data) {
    std::copy(data.begin(), data.end(), model_.begin() + static_cast<std::ptrdiff_t>(offset));
  }

  const std::shared_ptr<MemoryStorage> storage_ = std::make_shared<MemoryStorage>();
  VolumeLab lab_{storage_, "/a", kBlock};
  Tid base_;
  Bytes model_;  // what must be there in the end
};

TEST_P(Merge, OtherPagesOfABlock_BothAreKept) {
  test::BytesSource theirs;
  test::BytesSource mine;
  theirs.write(0, noise(10, kPageSize));
  mine.write(kPageSize, noise(11, 2 * kPageSize));
  others_commit(theirs);
  EXPECT_THROW(own_commit(mine, false), CommitConflict);
  const CommitResult result = own_commit(mine);
  EXPECT_TRUE(result.tid);
  EXPECT_EQ(result.blocks_merged, 1u);
  put(0, noise(10, kPageSize));
  put(kPageSize, noise(11, 2 * kPageSize));
  EXPECT_EQ(bytes(), model_);
}

TEST_P(Merge, OnePageChangedByBoth_IsNamedAndNothingIsStored) {
  test::BytesSource theirs;
  test::BytesSource mine;
  theirs.write(5, noise(10, 1));                           // page 0 of block 0
  theirs.write(2 * kBlock + 3 * kPageSize, noise(12, 1));  // what was a hole of block 2
  mine.write(0, noise(11, 2 * kPageSize));
  mine.write(2 * kBlock + 3 * kPageSize, noise(13, 2 * kPageSize));
  const Tid won = others_commit(theirs);
  try {
    own_commit(mine);
    FAIL() << "no conflict";
  } catch (const CommitConflict& conflict) {
    ASSERT_EQ(conflict.blocks.size(), 2u);
    EXPECT_EQ(conflict.blocks[0].pages, (ExtentList{{0, kPageSize}}));
    EXPECT_EQ(conflict.blocks[0].offset, 0u);
    EXPECT_EQ(conflict.blocks[0].base_tid, base_);
    EXPECT_EQ(conflict.blocks[0].tid, won);
    EXPECT_EQ(conflict.blocks[0].user, "eve");
    EXPECT_EQ(conflict.blocks[0].description, "theirs");
    EXPECT_EQ(conflict.blocks[1].pages, (ExtentList{{2 * kBlock + 3 * kPageSize, kPageSize}}));
  }
  EXPECT_EQ(storage_->last_tid(), won);
}

TEST_P(Merge, PageRewrittenAsItWas_TheOthersPageStays) {
  test::BytesSource theirs;
  test::BytesSource mine;
  theirs.write(0, noise(10, kPageSize));
  mine.write(0, ByteView(model_).first(2 * kPageSize));
  const Tid won = others_commit(theirs);
  const CommitResult result = own_commit(mine);
  EXPECT_FALSE(result.tid);
  put(0, noise(10, kPageSize));
  EXPECT_EQ(bytes(), model_);
  EXPECT_EQ(storage_->last_tid(), won);
}

TEST_P(Merge, BothWroteTheSame_NothingIsStoredOfIt) {
  test::BytesSource theirs;
  test::BytesSource mine;
  theirs.write(0, noise(10, kPageSize));
  mine.write(0, noise(10, kPageSize));
  mine.write(7 * kPageSize, noise(11, kPageSize));
  others_commit(theirs);
  EXPECT_TRUE(own_commit(mine).tid);
  put(0, noise(10, kPageSize));
  put(7 * kPageSize, noise(11, kPageSize));
  EXPECT_EQ(bytes(), model_);
}

TEST_P(Merge, HoleFilledByAnother_Merges) {
  test::BytesSource theirs;
  test::BytesSource mine;
  theirs.write(kBlock, noise(10, kPageSize));
  mine.write(kBlock + 3 * kPageSize, noise(11, kPageSize));
  others_commit(theirs);
  EXPECT_TRUE(own_commit(mine).tid);
  put(kBlock, noise(10, kPageSize));
  put(kBlock + 3 * kPageSize, noise(11, kPageSize));
  EXPECT_EQ(bytes(), model_);
}

TEST_P(Merge, RandomWrites_PageByPageAsTheModel) {
  std::mt19937_64 random(20260101);
  for (int round = 0; round < 30; ++round) {
    test::BytesSource theirs;
    test::BytesSource mine;
    bool both = false;
    const Bytes before = model_;
    for (std::uint64_t page = 0; page < 4 * kPages; ++page) {
      const std::uint64_t who = random() % 8;
      const std::uint64_t at = page * kPageSize;
      const Bytes data = noise(random(), kPageSize);
      if (who == 0) theirs.write(at, data);
      if (who == 1) mine.write(at, data);
      if (who == 2) mine.write(at, ByteView(before).subspan(at, kPageSize));
      if (who == 3 && round % 5 == 4 && page == kPages) {
        both = true;
        theirs.write(at, data);
        mine.write(at, noise(random(), kPageSize));
      }
      if (who < 2) put(at, data);
    }
    others_commit(theirs);
    if (both) {
      EXPECT_THROW(own_commit(mine), CommitConflict);
      model_ = bytes();
    } else {
      own_commit(mine);
      ASSERT_EQ(bytes(), model_) << "round " << round;
    }
    base_ = lab_.at();
  }
}

// What was committed and not heard of (VolumeCommit::own) is no conflict, though another client
// committed to other blocks meanwhile; what that one committed is.
TEST_P(Merge, OwnEarlierCommit_IsNoConflictOthersAre) {
  test::BytesSource mine;
  mine.write(0, noise(10, kPageSize));
  const Tid own = *own_commit(mine, false).tid;
  test::BytesSource theirs;
  theirs.write(kBlock, noise(11, kPageSize));
  others_commit(theirs);
  test::BytesSource again;
  again.write(0, noise(12, kPageSize));
  EXPECT_THROW(commit(again, base_, GetParam().own, false), CommitConflict);
  EXPECT_TRUE(commit(again, base_, GetParam().own, false, {own}).tid);
  test::BytesSource more;
  more.write(kBlock + kPageSize, noise(13, 1));
  EXPECT_THROW(commit(more, base_, GetParam().own, false, {own}), CommitConflict);
}

INSTANTIATE_TEST_SUITE_P(AllFormats, Merge,
                         ::testing::Values(Formats{BlockFormat::kZBlk0, BlockFormat::kZBlk0},
                                           Formats{BlockFormat::kZBlk1, BlockFormat::kZBlk1},
                                           Formats{BlockFormat::kZBlk0, BlockFormat::kZBlk1},
                                           Formats{BlockFormat::kZBlk1, BlockFormat::kAuto}));

}  // namespace
}  // namespace zbig
