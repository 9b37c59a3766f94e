// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/commit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include "tests/support/memory_storage.h"
#include "tests/support/volume_lab.h"
#include "zodb/error.h"

// What a commit stores, row by row of what wendelin.core does (docs/formats/zbigfile.md).

namespace zbig {
namespace {

using test::MemoryStorage;
using test::noise;
using test::stored_kinds;
using test::VolumeLab;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::uint64_t kBlock = 65536;
constexpr std::uint64_t kChunk = 4096;

class Commit : public ::testing::Test {
 protected:
  std::vector<std::string> kinds(const CommitResult& result) {
    return result.tid ? stored_kinds(*storage_, *result.tid) : std::vector<std::string>();
  }
  Bytes record(Oid oid) { return storage_->load(oid, storage_->last_tid())->data; }

  const std::shared_ptr<MemoryStorage> storage_ = std::make_shared<MemoryStorage>();
  VolumeLab lab_{storage_, "/a", kBlock};
};

TEST_F(Commit, NothingDirty_NoTransaction) {
  storage_->reset_counts();
  EXPECT_FALSE(lab_.commit().tid);
  EXPECT_EQ(storage_->counts().begun, 0u);
}

TEST_F(Commit, NewBlock_ZBlk0AndTable) {
  lab_.write_block(0, noise(1, kBlock));
  EXPECT_THAT(kinds(lab_.commit()), ElementsAre("LOBTree 98", "ZBlk0 65585"));
  EXPECT_EQ(lab_.differs(), "");
}

TEST_F(Commit, TrailingZeros_AreNotStored) {
  for (const std::size_t n : {0u, 1u, 255u, 256u, 300u, 65535u}) {
    VolumeLab lab(storage_, "/n" + std::to_string(n), kBlock);
    lab.write_block(3, noise(n + 1, n));
    lab.commit();
    EXPECT_EQ(record(lab.zblk_of(3)).size(), n + (n < 256 ? 46 : 49));
    EXPECT_EQ(lab.differs(), "");
  }
}

TEST_F(Commit, ZerosIntoAHole_AnEmptyBlockIsStored) {
  lab_.zero(2 * kBlock, kChunk);
  EXPECT_THAT(kinds(lab_.commit()), ElementsAre("LOBTree 98", "ZBlk0 46"));
  EXPECT_EQ(lab_.view().size(), 3 * kBlock);
  lab_.zero(2 * kBlock, kChunk);
  EXPECT_FALSE(lab_.commit().tid) << "what landed compares equal";
}

TEST_F(Commit, SameBytes_NoTransaction) {
  for (const BlockFormat format : {BlockFormat::kZBlk0, BlockFormat::kZBlk1, BlockFormat::kAuto}) {
    lab_.write_block(1, noise(1, 50000));
    lab_.commit(format);
    storage_->reset_counts();
    for (const BlockFormat again :
         {BlockFormat::kZBlk0, BlockFormat::kZBlk1, BlockFormat::kAuto, BlockFormat::kKeep}) {
      lab_.write(kBlock + 5, ByteView(noise(1, 50000)).subspan(5));
      EXPECT_FALSE(lab_.commit(again).tid);
    }
    EXPECT_EQ(storage_->counts().begun, 0u);
  }
}

TEST_F(Commit, OneChunkOfZBlk1Modified_ExactlyZDataAndZBlk1) {
  lab_.write_block(0, noise(1, kBlock));
  lab_.commit(BlockFormat::kZBlk1);
  const Oid zblk = lab_.zblk_of(0);
  lab_.write(3 * kChunk + 17, noise(2, 1));
  EXPECT_THAT(kinds(lab_.commit(BlockFormat::kZBlk1)), ElementsAre("ZBlk1 84", "ZData 4145"));
  EXPECT_EQ(lab_.zblk_of(0), zblk);
  EXPECT_EQ(lab_.differs(), "");
}

// The rule is `>`: a chunk of exactly 4096 bytes is no reason to write all chunks anew.
TEST_F(Commit, FullBlockOneByteChanged_OneZDataWithTheSameOid) {
  lab_.write_block(0, noise(1, kBlock));
  lab_.commit(BlockFormat::kZBlk1);
  const auto first = storage_->stored(lab_.at());
  lab_.write(kBlock - 1, noise(9, 1));
  const auto result = lab_.commit(BlockFormat::kZBlk1);
  ASSERT_EQ(result.objects_stored, 2u);
  for (const auto& stored : storage_->stored(*result.tid)) {
    EXPECT_TRUE(std::any_of(first.begin(), first.end(),
                            [&](const auto& before) { return before.oid == stored.oid; }));
  }
}

TEST_F(Commit, ChunkAppears_ZDataTableAndZBlk1) {
  lab_.write(0, noise(1, 100));
  lab_.commit(BlockFormat::kZBlk1);
  lab_.write(5 * kChunk, noise(2, 10));
  EXPECT_THAT(kinds(lab_.commit(BlockFormat::kZBlk1)),
              ElementsAre("IOBTree 120", "ZBlk1 84", "ZData 56"));
  EXPECT_EQ(lab_.differs(), "");
}

TEST_F(Commit, ChunkBecomesZero_TableAndZBlk1) {
  lab_.write(0, noise(1, 2 * kChunk));
  lab_.commit(BlockFormat::kZBlk1);
  lab_.zero(kChunk, kChunk);
  EXPECT_THAT(kinds(lab_.commit(BlockFormat::kZBlk1)), ElementsAre("IOBTree 98", "ZBlk1 84"));
  EXPECT_EQ(lab_.differs(), "");
}

TEST_F(Commit, BlockBecomesZero_TheEntryStays) {
  lab_.write(0, noise(1, 2 * kChunk));
  lab_.commit(BlockFormat::kZBlk1);
  lab_.zero(0, kBlock);
  EXPECT_THAT(kinds(lab_.commit(BlockFormat::kZBlk1)), ElementsAre("IOBTree 33", "ZBlk1 84"));
  EXPECT_EQ(lab_.format_of(0), "ZBlk1");
  EXPECT_EQ(lab_.differs(), "");
}

TEST_F(Commit, NewZBlk1OfZeros_TableZBlk1AndEmptyTree) {
  lab_.zero(0, kBlock);
  EXPECT_THAT(kinds(lab_.commit(BlockFormat::kZBlk1)),
              ElementsAre("IOBTree 33", "LOBTree 98", "ZBlk1 84"));
}

TEST_F(Commit, WholeBlockOf2MiB_531Records) {
  VolumeLab lab(storage_, "/big", 2u << 20);
  lab.write_block(0, noise(1, 2u << 20));
  const auto result = lab.commit(BlockFormat::kZBlk1);
  EXPECT_EQ(result.objects_stored, 532u);  // and the block table
  EXPECT_EQ(lab.differs(), "");
}

TEST_F(Commit, OtherFormat_BlockIsReplacedAndTheOldObjectTouched) {
  struct Case {
    BlockFormat from;
    BlockFormat to;
    std::string touched;
  };
  for (const Case& c : {Case{BlockFormat::kZBlk0, BlockFormat::kZBlk1, "ZBlk0 46"},
                        Case{BlockFormat::kZBlk1, BlockFormat::kZBlk0, "ZBlk1 84"}}) {
    VolumeLab lab(storage_, "/to" + c.touched.substr(0, 5), kBlock);
    lab.write_block(7, noise(1, 30000));
    lab.commit(c.from);
    const Oid old = lab.zblk_of(7);
    lab.write(7 * kBlock + 100, noise(2, 3));
    const auto result = lab.commit(c.to);
    EXPECT_NE(lab.zblk_of(7), old);
    EXPECT_EQ(lab.differs(), "");
    EXPECT_THAT(kinds(result), ::testing::Contains(c.touched));
    const auto stored = storage_->stored(*result.tid);
    EXPECT_TRUE(
        std::any_of(stored.begin(), stored.end(), [&](const auto& s) { return s.oid == old; }));
  }
}

TEST_F(Commit, KeepFormat_TheBlockDecides) {
  lab_.write_block(0, noise(1, 500));
  lab_.commit(BlockFormat::kZBlk1);
  lab_.write_block(0, noise(2, 500));
  lab_.write_block(1, noise(3, 500));
  lab_.commit(BlockFormat::kKeep);
  EXPECT_EQ(lab_.format_of(0), "ZBlk1");
  EXPECT_EQ(lab_.format_of(1), "ZBlk0");
  EXPECT_EQ(lab_.differs(), "");
}

// Insert and replace look at every tree node on the way; writing in place at none.
TEST_F(Commit, TreeNodesOnTheWay_AreCheckedForInsertOnly) {
  for (std::uint64_t block = 0; block < 100; ++block) lab_.write_block(block, noise(block, 9));
  lab_.commit();
  lab_.write_block(50, noise(1, 10));
  lab_.commit();
  EXPECT_THAT(storage_->checked(), IsEmpty());
  lab_.write_block(1000, noise(1, 10));
  lab_.commit();
  EXPECT_THAT(storage_->checked(), ElementsAre(lab_.volume().blktab));
  lab_.write_block(50, noise(2, 10));
  lab_.commit(BlockFormat::kZBlk1);
  EXPECT_THAT(storage_->checked(), ElementsAre(lab_.volume().blktab));
}

TEST_F(Commit, UnchangedBesideChanged_IsCheckedToStay) {
  lab_.write_block(0, noise(1, 10));
  lab_.write_block(1, noise(2, 10));
  lab_.commit();
  lab_.write_block(0, noise(1, 10));
  lab_.write_block(1, noise(3, 10));
  EXPECT_THAT(kinds(lab_.commit()), ElementsAre("ZBlk0 56"));
  EXPECT_THAT(storage_->checked(), ElementsAre(lab_.zblk_of(0)));
}

// --- conflicts

class CommitConflicts : public Commit {
 protected:
  // Another client commits a write.
  Tid other(std::uint64_t offset, const Bytes& bytes, BlockFormat format = BlockFormat::kZBlk0) {
    test::BytesSource source;
    source.write(offset, bytes);
    const Tid head = storage_->last_tid();
    const VolumeCommit work{find_volume(*storage_, "/a", head), head, &source, format};
    return *zbig::commit(*storage_, {&work, 1}, {"eve", "first", {}}, {}).tid;
  }
};

TEST_F(CommitConflicts, SameBlock_AllAreNamedAndNothingIsStored) {
  lab_.write_block(0, noise(1, 100));
  lab_.write_block(1, noise(1, 100));
  lab_.commit();
  const Tid base = lab_.at();
  other(10, noise(7, 1));
  const Tid won = other(kBlock + 20, noise(8, 1));
  lab_.write(50, noise(2, 1));
  lab_.write(kBlock, noise(2, 1));
  lab_.write(5 * kBlock, noise(2, 1));
  try {
    lab_.commit();
    FAIL() << "no conflict";
  } catch (const CommitConflict& conflict) {
    ASSERT_EQ(conflict.blocks.size(), 2u);
    EXPECT_EQ(conflict.blocks[1].volume, "/a");
    EXPECT_EQ(conflict.blocks[1].block, 1u);
    EXPECT_EQ(conflict.blocks[1].offset, kBlock);
    EXPECT_EQ(conflict.blocks[1].base_tid, base);
    EXPECT_EQ(conflict.blocks[1].tid, won);
    EXPECT_EQ(conflict.blocks[1].user, "eve");
    EXPECT_EQ(conflict.blocks[1].description, "first");
    EXPECT_THAT(conflict.what(), HasSubstr("block 0 of /a"));
  }
  EXPECT_EQ(storage_->last_tid(), won);
}

TEST_F(CommitConflicts, OtherBlock_BothAreKept) {
  lab_.write_block(0, noise(1, 100));
  lab_.write_block(1, noise(1, 100));
  lab_.commit();
  other(10, noise(7, 1));
  lab_.write(kBlock, noise(2, 1));
  EXPECT_TRUE(lab_.commit().tid);
  Bytes found(1);
  lab_.view().read(10, found);
  EXPECT_EQ(found, noise(7, 1));
}

TEST_F(CommitConflicts, DirtyBytesEqualTheHead_NoConflict) {
  lab_.write_block(0, noise(1, 100));
  lab_.commit();
  other(10, noise(7, 4));
  lab_.write(10, noise(7, 4));
  EXPECT_FALSE(lab_.commit().tid);
}

TEST_F(CommitConflicts, ReplacedByOtherFormat_IsAConflict) {
  lab_.write_block(0, noise(1, 100));
  lab_.commit();
  other(10, noise(7, 4), BlockFormat::kZBlk1);
  lab_.write(50, noise(3, 4));
  EXPECT_THROW(lab_.commit(), CommitConflict);
}

TEST_F(CommitConflicts, HoleFilledByAnother_IsAConflict) {
  lab_.write_block(0, noise(1, 100));
  lab_.commit();
  other(3 * kBlock + 10, noise(7, 4));
  lab_.write(3 * kBlock + 5000, noise(3, 4));
  EXPECT_THROW(lab_.commit(), CommitConflict);
}

TEST_F(CommitConflicts, OtherInsertWhileStoring_IsRetriedOnTheNewHead) {
  lab_.write_block(0, noise(1, 100));
  lab_.commit();
  storage_->before_begin = [this] {
    storage_->before_begin = nullptr;
    other(9 * kBlock, noise(7, 4));
  };
  lab_.write_block(5, noise(2, 100));
  EXPECT_TRUE(lab_.commit().tid);
  Bytes found(4);
  lab_.view().read(9 * kBlock, found);
  EXPECT_EQ(found, noise(7, 4));
}

TEST_F(CommitConflicts, SameBlockWhileStoring_IsAConflict) {
  lab_.write_block(0, noise(1, 100));
  lab_.commit();
  storage_->before_begin = [this] {
    storage_->before_begin = nullptr;
    other(20, noise(7, 4));
  };
  lab_.write(0, noise(2, 4));
  EXPECT_THROW(lab_.commit(), CommitConflict);
}

TEST_F(CommitConflicts, UnchangedBlockChangedWhileStoring_IsAConflict) {
  lab_.write_block(0, noise(1, 100));
  lab_.write_block(1, noise(1, 100));
  lab_.commit();
  storage_->before_begin = [this] {
    storage_->before_begin = nullptr;
    other(0, noise(7, 4));
  };
  lab_.write_block(0, noise(1, 100));  // as it is
  lab_.write_block(1, noise(2, 100));
  EXPECT_THROW(lab_.commit(), CommitConflict);
}

TEST_F(CommitConflicts, AlwaysLosing_GivesUpInTheEnd) {
  lab_.write_block(0, noise(1, 100));
  lab_.commit();
  int tries = 0;
  std::function<void()> hook = [&] {
    storage_->before_begin = nullptr;
    other(static_cast<std::uint64_t>(100 + ++tries) * kBlock, noise(7, 4));
    storage_->before_begin = hook;
  };
  storage_->before_begin = hook;
  lab_.write_block(5, noise(2, 100));
  EXPECT_THROW(lab_.commit(), Conflict);
  EXPECT_LT(tries, 20);
}

TEST_F(CommitConflicts, FileReplaced_EveryBlockConflicts) {
  lab_.write_block(0, noise(1, 100));
  lab_.commit();
  Bytes zfile = record(lab_.volume().zfile);
  zfile[46] = std::byte{0x01};  // another block size
  storage_->commit({{lab_.volume().zfile, zfile}});
  lab_.write(50, noise(3, 4));
  EXPECT_THROW(lab_.commit(), CommitConflict);
}

TEST_F(Commit, FullDisk_NothingIsStored) {
  lab_.write_block(0, noise(1, 100));
  lab_.commit();
  const Tid before = storage_->last_tid();
  storage_->fail_store = [](Oid) { throw NoSpace("the disk is full"); };
  lab_.write_block(0, noise(2, 100));
  EXPECT_THROW(lab_.commit(), NoSpace);
  EXPECT_EQ(storage_->last_tid(), before);
}

TEST_F(Commit, SourceFails_NothingIsStored) {
  class Broken : public test::BytesSource {
    void read(std::uint64_t, std::span<std::byte>) override { throw Unavailable("server away"); }
  };
  Broken source;
  source.write(0, noise(1, 100));
  const Tid before = storage_->last_tid();
  const VolumeCommit work{lab_.volume(), before, &source, BlockFormat::kZBlk0};
  EXPECT_THROW(zbig::commit(*storage_, {&work, 1}, {}, {}), Unavailable);
  EXPECT_EQ(storage_->last_tid(), before);
}

TEST_F(Commit, TwoVolumes_OneTransaction) {
  VolumeLab second(storage_, "/b", 4096);
  test::BytesSource a;
  test::BytesSource b;
  a.write(0, noise(1, 100));
  b.write(5000, noise(2, 100));
  const Tid base = storage_->last_tid();
  const VolumeCommit work[] = {{lab_.volume(), base, &a, BlockFormat::kZBlk0},
                               {second.volume(), base, &b, BlockFormat::kZBlk1}};
  std::uint64_t done = 0;
  std::uint64_t total = 0;
  const auto result = zbig::commit(*storage_, work, {"u", "d", {}}, [&](auto d, auto t) {
    done = d;
    total = t;
  });
  EXPECT_EQ(result.blocks_changed, 2u);
  EXPECT_EQ(done, 200u);
  EXPECT_EQ(total, 200u);
  for (const VolumeCommit& one : work) {
    const auto view = View::open(storage_, one.volume, *result.tid);
    Bytes found(100);
    view->read(one.source == &a ? 0 : 5000, found);
    EXPECT_EQ(found, noise(one.source == &a ? 1 : 2, 100));
  }
  const VolumeCommit twice[] = {work[0], work[0]};
  EXPECT_THROW(zbig::commit(*storage_, twice, {}, {}), Invalid);
}

// Random writes of all kinds in every format, with a model.
TEST_F(Commit, RandomWrites_TheModelHolds) {
  constexpr BlockFormat kFormats[] = {BlockFormat::kZBlk0, BlockFormat::kZBlk1, BlockFormat::kAuto,
                                      BlockFormat::kKeep};
  for (const std::uint64_t blksize : {1u, 100u, 4096u, 10000u, 65536u}) {
    VolumeLab lab(storage_, "/r" + std::to_string(blksize), blksize);
    std::uint64_t seed = blksize;
    const auto random = [&](std::uint64_t n) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      return (seed >> 33) % n;
    };
    for (int i = 0; i < 60; ++i) {
      const std::uint64_t writes = 1 + random(4);
      for (std::uint64_t w = 0; w < writes; ++w) {
        const std::uint64_t offset = random(12 * blksize);
        const std::uint64_t length = 1 + random(random(3) == 0 ? 2 * blksize : 50);
        if (random(4) == 0) {
          lab.zero(offset, length);
        } else {
          lab.write(offset, noise(seed, length));
        }
      }
      lab.commit(kFormats[random(4)]);
      ASSERT_EQ(lab.differs(), "") << "blksize " << blksize << ", step " << i;
    }
  }
}

// --- the names of formats

TEST(BlockFormatNames, ExactSpelling_OrNothing) {
  EXPECT_EQ(parse_block_format("ZBlk0"), BlockFormat::kZBlk0);
  EXPECT_EQ(parse_block_format("ZBlk1"), BlockFormat::kZBlk1);
  EXPECT_EQ(parse_block_format("auto"), BlockFormat::kAuto);
  for (const char* text : {"", "zblk0", "Auto", "ZBlk", "ZBlk2", "keep"}) {
    EXPECT_FALSE(parse_block_format(text)) << text;
  }
}

TEST(BlockFormatNames, Environment_DefaultsToZBlk0AndRefusesOthers) {
  ::unsetenv("WENDELIN_CORE_ZBLK_FMT");
  EXPECT_EQ(block_format_from_environment(), BlockFormat::kZBlk0);
  ::setenv("WENDELIN_CORE_ZBLK_FMT", "auto", 1);
  EXPECT_EQ(block_format_from_environment(), BlockFormat::kAuto);
  ::setenv("WENDELIN_CORE_ZBLK_FMT", "best", 1);
  EXPECT_THROW(block_format_from_environment(), Invalid);
  ::unsetenv("WENDELIN_CORE_ZBLK_FMT");
}

}  // namespace
}  // namespace zbig
