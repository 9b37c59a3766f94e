// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/changes.h"

#include <algorithm>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bigfile/view.h"
#include "tests/support/memory_storage.h"
#include "tests/support/volume_lab.h"
#include "zodb/btree_editor.h"
#include "zodb/error.h"
#include "zodb/record.h"

// Changes computed from the object graph, against brute force and against what other clients may do
// that wendelin.core does not.

namespace zbig {
namespace {

using test::MemoryStorage;
using test::noise;
using test::VolumeLab;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class ChangesTest : public ::testing::Test {
 protected:
  Changes between(const VolumeLab& lab, Tid from, Tid to) {
    return changed_extents(*storage_, lab.volume(), from, to,
                           storage_->changed_oids(std::min(from, to), std::max(from, to)));
  }
  // Commits edits of a block table as a program of its own might.
  Tid edit(const VolumeLab& lab, Oid root, KnownClass cls,
           const std::function<void(BTreeEditor&)>& change,
           std::vector<std::pair<Oid, std::optional<Bytes>>> more = {}) {
    const StorageNodeSource source(*storage_, lab.at());
    BTreeEditor tree(source, root, cls, [this] { return storage_->new_oid(); });
    change(tree);
    for (auto& store : tree.stores(Flavour::kPython3)) more.emplace_back(store.oid, store.record);
    return storage_->commit(more);
  }
  Oid chunktab_of(Oid zblk1) {
    return load_object(*storage_, zblk1, storage_->last_tid())->record.state().ref()->oid;
  }
  static Bytes zdata(ByteView payload) {
    const auto envelope =
        payload_envelope(Flavour::kPython3, ClassId::of(KnownClass::kZData), payload.size());
    Bytes record = envelope.head;
    append(record, payload);
    append(record, ByteView(envelope.tail));
    return record;
  }
  // Where the two states differ, byte by byte.
  void expect_covered(const VolumeLab& lab, Tid from, Tid to, const ExtentList& extents) {
    const auto before = View::open(storage_, lab.volume(), from);
    const auto after = View::open(storage_, lab.volume(), to);
    const std::uint64_t size = std::max(before->size(), after->size());
    Bytes a(size);
    Bytes b(size);
    before->read(0, a);
    after->read(0, b);
    for (const Extent& extent : extents) {
      ASSERT_LE(extent.end(), size);
      std::copy_n(b.begin() + static_cast<std::ptrdiff_t>(extent.offset), extent.length,
                  a.begin() + static_cast<std::ptrdiff_t>(extent.offset));
    }
    EXPECT_TRUE(a == b);
  }

  const std::shared_ptr<MemoryStorage> storage_ = std::make_shared<MemoryStorage>();
};

TEST_F(ChangesTest, RandomHistory_CoversEveryDifferenceBetweenAnyTwoStates) {
  constexpr BlockFormat kFormats[] = {BlockFormat::kZBlk0, BlockFormat::kZBlk1, BlockFormat::kAuto};
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    VolumeLab lab(storage_, "/v" + std::to_string(seed), seed % 2 == 0 ? 16 : 9000);
    VolumeLab other(storage_, "/other" + std::to_string(seed), 4096);
    std::uint64_t state = seed;
    const auto random = [&](std::uint64_t n) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      return (state >> 33) % n;
    };
    std::vector<Tid> tids{lab.at()};
    for (int step = 0; step < 25; ++step) {
      const std::uint64_t writes = 1 + random(step == 3 ? 150 : 5);
      for (std::uint64_t w = 0; w < writes; ++w) {
        const std::uint64_t offset = random(200) * lab.blksize() + random(lab.blksize());
        if (random(4) == 0) {
          lab.zero(offset, 1 + random(2 * lab.blksize()));
        } else {
          lab.write(offset, noise(state, 1 + random(60)));
        }
      }
      lab.commit(kFormats[random(3)]);
      if (random(3) == 0) {
        other.write(random(9) * 4096, noise(state, 50));
        other.commit(kFormats[random(3)]);
        lab.refresh();
      }
      if (random(4) == 0 && lab.view().size() > 0) {  // blocks vanish
        const std::uint64_t first = random(150);
        edit(lab, lab.volume().blktab, KnownClass::kLOBTree, [&](BTreeEditor& tree) {
          for (std::uint64_t k = first; k < first + 40; ++k) {
            tree.erase(static_cast<std::int64_t>(k));
          }
        });
        lab.refresh();
      }
      tids.push_back(lab.at());
    }
    for (std::size_t i = 0; i < tids.size(); i += 2) {
      for (std::size_t j = i; j < tids.size(); j += 1 + random(6)) {
        const Changes changes = between(lab, tids[i], tids[j]);
        EXPECT_FALSE(changes.whole_file);
        ASSERT_NO_FATAL_FAILURE(expect_covered(lab, tids[i], tids[j], changes.extents))
            << "seed " << seed << " from state " << i << " to " << j;
        const Changes back = between(lab, tids[j], tids[i]);
        EXPECT_EQ(back.extents, changes.extents);
        EXPECT_EQ(back.old_size, changes.new_size);
        if (i == j) {
          EXPECT_THAT(changes.extents, IsEmpty());
        }
        const auto differing = differing_extents(*storage_, lab.volume(), tids[i], tids[j]);
        ASSERT_NO_FATAL_FAILURE(expect_covered(lab, tids[i], tids[j], differing));
      }
    }
  }
}

TEST_F(ChangesTest, OneChunkOfZBlk1_OnlyThatChunk) {
  VolumeLab lab(storage_, "/a", 65536);
  lab.write_block(2, noise(1, 65536));
  lab.commit(BlockFormat::kZBlk1);
  const Tid from = lab.at();
  lab.write(2 * 65536 + 3 * 4096 + 5, noise(2, 1));
  lab.commit(BlockFormat::kZBlk1);
  EXPECT_THAT(between(lab, from, lab.at()).extents,
              ElementsAre(Extent{2 * 65536 + 3 * 4096, 4096}));
  EXPECT_THAT(differing_extents(*storage_, lab.volume(), from, lab.at()),
              ElementsAre(Extent{2 * 65536 + 3 * 4096 + 5, 1}));
}

TEST_F(ChangesTest, NodesSplit_NoBlockChanges) {
  VolumeLab lab(storage_, "/a", 16);
  for (std::uint64_t i = 0; i < 60; ++i) lab.write_block(i, noise(i, 10));
  lab.commit();
  const Tid from = lab.at();
  lab.write_block(60, noise(60, 10));  // the 61st: two buckets
  lab.commit();
  EXPECT_THAT(between(lab, from, lab.at()).extents, ElementsAre(Extent{60 * 16, 10}));
  const auto blocks = changed_blocks(*storage_, lab.volume(), from, lab.at());
  ASSERT_EQ(blocks.size(), 1u);
  EXPECT_EQ(blocks[0].block, 60u);
}

// What makes wendelin.core 1 show stale data: nothing but the chunk is stored.
TEST_F(ChangesTest, ZDataStoredWithoutItsZBlk1_IsFound) {
  VolumeLab lab(storage_, "/a", 65536);
  lab.write_block(0, noise(1, 65536));
  lab.write_block(1, noise(2, 65536));
  lab.commit(BlockFormat::kZBlk1);
  const Tid from = lab.at();
  const StorageNodeSource source(*storage_, from);
  const auto chunk = BTree(source, chunktab_of(lab.zblk_of(1)), KnownClass::kIOBTree).find(8192);
  const Tid to = storage_->commit({{chunk->oid, zdata(noise(5, 4000))}});
  EXPECT_THAT(between(lab, from, to).extents, ElementsAre(Extent{65536 + 8192, 4096}));
  const auto blocks = changed_blocks(*storage_, lab.volume(), from, to);
  ASSERT_EQ(blocks.size(), 1u);
  EXPECT_EQ(blocks[0].block, 1u);
  EXPECT_EQ(blocks[0].tid, to);
  const auto view = lab.view().advance(to, storage_->changed_oids(from, to));
  Bytes found(4096);
  view->read(65536 + 8192, found);
  Bytes wanted = noise(5, 4000);
  wanted.resize(4096);
  EXPECT_EQ(found, wanted);
}

TEST_F(ChangesTest, ChunkTableStoredWithoutItsZBlk1_IsFound) {
  VolumeLab lab(storage_, "/a", 65536);
  lab.write_block(3, noise(1, 65536));
  lab.commit(BlockFormat::kZBlk1);
  const Tid from = lab.at();
  Bytes before(65536);
  lab.view().read(3 * 65536, before);
  const Tid to = edit(lab, chunktab_of(lab.zblk_of(3)), KnownClass::kIOBTree,
                      [](BTreeEditor& tree) { tree.clear(); });
  EXPECT_THAT(between(lab, from, to).extents, ElementsAre(Extent{3 * 65536, 65536}));
  const auto view = lab.view().advance(to, storage_->changed_oids(from, to));
  Bytes found(65536);
  view->read(3 * 65536, found);
  EXPECT_EQ(found, Bytes(65536));
}

TEST_F(ChangesTest, ChunksOfAnotherVolume_NoTableIsWalked) {
  VolumeLab lab(storage_, "/a", 65536);
  VolumeLab other(storage_, "/b", 65536);
  for (std::uint64_t i = 0; i < 20; ++i) lab.write_block(i, noise(i, 65536));
  lab.commit(BlockFormat::kZBlk1);
  const Tid from = lab.at();
  other.write_block(0, noise(1, 65536));
  other.commit(BlockFormat::kZBlk1);
  storage_->reset_counts();
  EXPECT_THAT(between(lab, from, other.at()).extents, IsEmpty());
  EXPECT_LT(storage_->counts().loaded, 30u);
}

TEST_F(ChangesTest, ReplacedWithoutATouch_IsFound) {
  VolumeLab lab(storage_, "/a", 4096);
  lab.write_block(0, noise(1, 4096));
  lab.commit();
  const Tid from = lab.at();
  const Oid oid = storage_->new_oid();
  const auto envelope = payload_envelope(Flavour::kPython3, ClassId::of(KnownClass::kZBlk0), 100);
  Bytes record = envelope.head;
  append(record, ByteView(noise(9, 100)));
  append(record, ByteView(envelope.tail));
  const Tid to = edit(lab, lab.volume().blktab, KnownClass::kLOBTree,
                      [&](BTreeEditor& tree) { tree.set(0, ref_to(oid, KnownClass::kZBlk0)); },
                      {{oid, record}});
  EXPECT_THAT(between(lab, from, to).extents, ElementsAre(Extent{0, 4096}));
  const auto view = lab.view().advance(to, storage_->changed_oids(from, to));
  Bytes found(100);
  view->read(0, found);
  EXPECT_EQ(found, noise(9, 100));
}

TEST_F(ChangesTest, SameObjectAtTwoBlocks_BothChange) {
  VolumeLab lab(storage_, "/a", 4096);
  lab.write_block(0, noise(1, 4096));
  lab.commit();
  const Oid zblk = lab.zblk_of(0);
  const Tid from = edit(lab, lab.volume().blktab, KnownClass::kLOBTree,
                        [&](BTreeEditor& tree) { tree.set(5, ref_to(zblk, KnownClass::kZBlk0)); });
  lab.refresh();
  lab.write(10, noise(2, 1));
  lab.commit();
  EXPECT_THAT(between(lab, from, lab.at()).extents,
              ElementsAre(Extent{0, 4096}, Extent{5 * 4096, 4096}));
}

TEST_F(ChangesTest, FileReplacedOrGone_WholeFile) {
  VolumeLab lab(storage_, "/a", 4096);
  const Tid before_it = Tid{lab.at().value - 1};
  lab.write_block(0, noise(1, 4096));
  lab.commit();
  EXPECT_TRUE(between(lab, before_it, lab.at()).whole_file);
  EXPECT_EQ(between(lab, before_it, lab.at()).old_size, 0u);
  EXPECT_EQ(between(lab, before_it, lab.at()).new_size, 4096u);
  const Tid gone = storage_->commit({{lab.volume().zfile, std::nullopt}});
  EXPECT_TRUE(between(lab, lab.at(), gone).whole_file);
  EXPECT_THROW(lab.view().advance(gone, storage_->changed_oids(lab.at(), gone)), NotFound);
  EXPECT_THROW(changed_extents(*storage_, lab.volume(), gone, gone, {}), NotFound);
}

}  // namespace
}  // namespace zbig
