// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/view.h"

#include <limits>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include "tests/support/memory_storage.h"
#include "tests/support/volume_lab.h"
#include "zodb/btree_editor.h"
#include "zodb/error.h"

// How many batches a read costs, what is refused as corrupt, and what moving on keeps.

namespace zbig {
namespace {

using test::MemoryStorage;
using test::noise;
using test::VolumeLab;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint64_t kBlock = 2u << 20;

class ViewTest : public ::testing::Test {
 protected:
  std::string error_of(const View& view, std::uint64_t offset, std::size_t length) {
    Bytes out(length);
    try {
      view.read(offset, out);
    } catch (const Corrupt& error) {
      return error.what();
    }
    return "no error";
  }
  static Bytes payload_record(KnownClass cls, ByteView payload) {
    const auto envelope = payload_envelope(Flavour::kPython3, ClassId::of(cls), payload.size());
    Bytes record = envelope.head;
    append(record, payload);
    append(record, ByteView(envelope.tail));
    return record;
  }
  // A volume with one ZBlk1 as block 4, with these chunks.
  std::shared_ptr<const View> with_chunks(
      std::uint64_t blksize, const std::vector<std::pair<std::int64_t, Bytes>>& chunks) {
    VolumeLab lab(storage_, "/c" + std::to_string(++volumes_), blksize);
    std::vector<std::pair<Oid, std::optional<Bytes>>> records;
    const auto new_oid = [this] { return storage_->new_oid(); };
    const Oid zblk = new_oid();
    const Oid chunktab = new_oid();
    auto table = BTreeEditor::create(chunktab, KnownClass::kIOBTree, new_oid);
    for (const auto& [offset, payload] : chunks) {
      const Oid oid = new_oid();
      if (offset >= 0) table.set(offset, ref_to(oid, KnownClass::kZData));
      records.emplace_back(oid, payload_record(KnownClass::kZData, payload));
    }
    if (chunks.front().first < 0) {  // which no editor would do
      BTreeNode bad(ClassId::of(KnownClass::kIOBTree), BTreeNode::Shape::kEmbedded);
      bad.keys.push_back(chunks.front().first);
      bad.refs.push_back(ref_to(records.front().first, KnownClass::kZData));
      records.emplace_back(chunktab, encode_btree_node(bad, Flavour::kPython3));
    }
    RecordWriter zblk1(Flavour::kPython3, ClassId::of(KnownClass::kZBlk1).name());
    zblk1.ref(chunktab, ClassId::of(KnownClass::kIOBTree).name());
    records.emplace_back(zblk, zblk1.finish());
    const StorageNodeSource source(*storage_, lab.at());
    BTreeEditor blktab(source, lab.volume().blktab, KnownClass::kLOBTree, new_oid);
    blktab.set(4, ref_to(zblk, KnownClass::kZBlk1));
    for (const BTreeEditor* tree : {&table, &blktab}) {
      for (auto& store : tree->stores(Flavour::kPython3)) {
        if (chunks.front().first < 0 && store.oid == chunktab) continue;
        records.emplace_back(store.oid, store.record);
      }
    }
    const Tid tid = storage_->commit(records);
    return View::open(storage_, lab.volume(), tid);
  }

  const std::shared_ptr<MemoryStorage> storage_ = std::make_shared<MemoryStorage>();
  int volumes_ = 0;
};

TEST_F(ViewTest, KnownBlockOfZBlk0_OneReadOfWhatIsWanted) {
  VolumeLab lab(storage_, "/a", kBlock);
  lab.write_block(0, noise(1, kBlock));
  lab.commit();
  Bytes out(4096);
  lab.view().read(8192, out);
  storage_->reset_counts();
  lab.view().read(123 * 4096, out);
  EXPECT_EQ(storage_->counts().batches(), 1u);
  EXPECT_EQ(storage_->counts().read_batches, 1u);
  EXPECT_EQ(storage_->counts().parts, 1u);
  EXPECT_EQ(storage_->counts().bytes_read, 4096u);
}

TEST_F(ViewTest, KnownChunkOfZBlk1_OneReadOfWhatIsWanted) {
  VolumeLab lab(storage_, "/a", kBlock);
  lab.write_block(0, noise(1, kBlock));
  lab.commit(BlockFormat::kZBlk1);
  Bytes out(4096);
  lab.view().read(8192, out);
  storage_->reset_counts();
  lab.view().read(8192 + 100, std::span(out).first(1000));
  EXPECT_EQ(storage_->counts().batches(), 1u);
  EXPECT_LE(storage_->counts().bytes_read, 1000u + 64);  // and the head of its record
}

TEST_F(ViewTest, SmallReadOfZBlk1_BringsOnlyItsChunk) {
  VolumeLab lab(storage_, "/a", kBlock);
  lab.write_block(0, noise(1, kBlock));
  lab.commit(BlockFormat::kZBlk1);
  const auto view = View::open(storage_, lab.volume(), lab.at());
  storage_->reset_counts();
  Bytes out(4096);
  view->read(100 * 4096, out);
  EXPECT_LE(storage_->counts().located, 2u);  // ZBlk1, ZData
  EXPECT_LE(storage_->counts().loaded, 2u);   // table, bucket
  EXPECT_LT(storage_->counts().bytes_read, 4096u + 300);
}

TEST_F(ViewTest, BigRead_AFewBatchesHoweverManyBlocks) {
  VolumeLab lab(storage_, "/a", 65536);
  for (std::uint64_t i = 0; i < 100; ++i) lab.write_block(i, noise(i, 65536));
  lab.commit(BlockFormat::kZBlk1);
  const auto view = View::open(storage_, lab.volume(), lab.at());
  storage_->reset_counts();
  Bytes out(100 * 65536);
  view->read(0, out);
  // Buckets of the block table, ZBlk1s (2), tables (2), ZData (3).
  EXPECT_LE(storage_->counts().batches(), 10u);
  storage_->reset_counts();
  view->read(0, out);
  EXPECT_LE(storage_->counts().batches(), 4u);
  for (std::uint64_t i = 0; i < 100; ++i) {
    ASSERT_EQ(Bytes(out.begin() + static_cast<std::ptrdiff_t>(i * 65536),
                    out.begin() + static_cast<std::ptrdiff_t>((i + 1) * 65536)),
              noise(i, 65536));
  }
}

// By the middle the caches are full (an entry of each has a hundred bytes and more); from there on
// nothing may stay of a block that was read. Eight bytes a block would show.
TEST_F(ViewTest, ReadManyZBlk1s_NothingStaysOfABlockWhenTheCachesAreFull) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's heap does not count";
#endif
  constexpr std::uint64_t kBlocks = 90000;
  constexpr std::uint64_t kSize = 512;
  VolumeLab lab(storage_, "/a", kSize);
  for (std::uint64_t i = 0; i < kBlocks; ++i) lab.write_block(i, noise(i, kSize));
  lab.commit(BlockFormat::kZBlk1);
  const auto view = View::open(storage_, lab.volume(), lab.at());
  Bytes out(kSize);
  const auto read = [&](std::uint64_t begin, std::uint64_t end) {
    for (std::uint64_t i = begin; i < end; ++i) view->read(i * kSize, out);
    return ::mallinfo2().uordblks;
  };
  const std::size_t middle = read(0, kBlocks / 2);
  const std::size_t end = read(kBlocks / 2, kBlocks);
  EXPECT_LE(end, middle + (kBlocks / 2) * 8);
}

TEST_F(ViewTest, HolesAndPastTheEnd_AreZeros) {
  VolumeLab lab(storage_, "/a", 100);
  lab.write(250, noise(1, 10));
  lab.commit();
  Bytes out(1000, std::byte{1});
  lab.view().read(0, out);
  EXPECT_EQ(Bytes(out.begin(), out.begin() + 250), Bytes(250));
  EXPECT_EQ(Bytes(out.begin() + 250, out.begin() + 260), noise(1, 10));
  EXPECT_EQ(Bytes(out.begin() + 260, out.end()), Bytes(740));
  lab.view().read(std::numeric_limits<std::uint64_t>::max() - 10, std::span(out).first(10));
  lab.view().read(std::uint64_t{1} << 63, std::span(out).first(10));
  EXPECT_EQ(Bytes(out.begin(), out.begin() + 10), Bytes(10));
  EXPECT_THAT(lab.view().data_extents(0, 1000), ElementsAre(Extent{200, 100}));
  EXPECT_THAT(lab.view().data_extents(210, 20), ElementsAre(Extent{210, 20}));
  EXPECT_THAT(lab.view().data_extents(0, 200), ElementsAre());
}

TEST_F(ViewTest, BlockNumbersUpTo2To62_AreRead) {
  VolumeLab lab(storage_, "/a", 1);
  const std::uint64_t far = std::uint64_t{1} << 62;
  lab.write(far, noise(1, 1));
  lab.write(7, noise(2, 1));
  lab.commit();
  EXPECT_EQ(lab.view().size(), far + 1);
  Bytes out(3);
  lab.view().read(far - 1, out);
  EXPECT_EQ(out, (Bytes{std::byte{}, noise(1, 1)[0], std::byte{}}));
}

TEST_F(ViewTest, LargerThan63Bits_Unsupported) {
  VolumeLab lab(storage_, "/a", 4096);
  const StorageNodeSource source(*storage_, lab.at());
  BTreeEditor blktab(source, lab.volume().blktab, KnownClass::kLOBTree,
                     [this] { return storage_->new_oid(); });
  const Oid zblk = storage_->new_oid();
  blktab.set(std::int64_t{1} << 60, ref_to(zblk, KnownClass::kZBlk0));
  std::vector<std::pair<Oid, std::optional<Bytes>>> records{
      {zblk, payload_record(KnownClass::kZBlk0, {})}};
  for (auto& store : blktab.stores(Flavour::kPython3)) {
    records.emplace_back(store.oid, store.record);
  }
  const Tid tid = storage_->commit(records);
  EXPECT_THROW(View::open(storage_, lab.volume(), tid), Unsupported);
}

TEST_F(ViewTest, ChunksAnywhere_AreReadAsTheyAre) {
  const auto view = with_chunks(1000, {{0, noise(1, 10)},
                                       {10, noise(2, 90)},
                                       {300, noise(3, 0)},
                                       {301, noise(4, 500)},
                                       {999, noise(5, 1)}});
  Bytes wanted(1000);
  const auto put = [&](std::size_t at, const Bytes& bytes) {
    std::copy(bytes.begin(), bytes.end(), wanted.begin() + static_cast<std::ptrdiff_t>(at));
  };
  put(0, noise(1, 10));
  put(10, noise(2, 90));
  put(301, noise(4, 500));
  put(999, noise(5, 1));
  for (std::size_t from = 0; from < 1000; from += 37) {
    for (std::size_t length : {1u, 5u, 400u}) {
      length = std::min<std::size_t>(length, 1000 - from);
      Bytes out(length, std::byte{0xee});
      view->read(4000 + from, out);
      ASSERT_EQ(out, Bytes(wanted.begin() + static_cast<std::ptrdiff_t>(from),
                           wanted.begin() + static_cast<std::ptrdiff_t>(from + length)))
          << from;
    }
  }
}

TEST_F(ViewTest, ChunksOfManySizes_AgreeWithWhatTheyAreReadAsWhole) {
  std::vector<std::pair<std::int64_t, Bytes>> chunks;
  Bytes wanted(200000);
  std::uint64_t at = 3;
  for (std::uint64_t i = 0; at < 190000; ++i) {
    const std::uint64_t length = 200 + i * 7919 % 3000;
    const Bytes bytes = noise(i, length);
    std::copy(bytes.begin(), bytes.end(), wanted.begin() + static_cast<std::ptrdiff_t>(at));
    chunks.emplace_back(static_cast<std::int64_t>(at), bytes);
    at += length + i * 31 % 50;
  }
  const auto view = with_chunks(200000, chunks);
  for (int round = 0; round < 2; ++round) {
    Bytes out(200000, std::byte{0xee});
    view->read(4 * 200000, out);
    EXPECT_TRUE(out == wanted);
    out.assign(100000, std::byte{0xee});
    view->read(4 * 200000 + 777, out);
    EXPECT_TRUE(std::equal(out.begin(), out.end(), wanted.begin() + 777));
  }
}

TEST_F(ViewTest, ChunksThatOverlapOrOverrun_AreCorrupt) {
  const auto named = [](const std::string& what) {
    return AllOf(HasSubstr("block 4"), HasSubstr("object 0x"), HasSubstr("at tid "),
                 HasSubstr(what));
  };
  const auto overlap = with_chunks(1000, {{0, noise(1, 11)}, {10, noise(2, 5)}});
  EXPECT_THAT(error_of(*overlap, 4000, 1000), named("reaches past 10"));
  EXPECT_THAT(error_of(*overlap, 4000, 15), named("reaches past 10"));
  const auto overrun = with_chunks(1000, {{900, noise(1, 101)}});
  EXPECT_THAT(error_of(*overrun, 4000, 1000), named("reaches past 1000"));
  EXPECT_THAT(error_of(*overrun, 4950, 1), named("reaches past 1000"));
  const auto outside = with_chunks(1000, {{2000, noise(1, 1)}});
  EXPECT_THAT(error_of(*outside, 4000, 1000), named("offset 2000"));
  const auto negative = with_chunks(1000, {{-5, noise(1, 1)}});
  EXPECT_THAT(error_of(*negative, 4000, 1000), named("offset -5"));
}

TEST_F(ViewTest, ZBlk0LongerThanABlock_IsCorrupt) {
  VolumeLab lab(storage_, "/a", 100);
  lab.write_block(3, noise(1, 100));
  lab.commit();
  const Tid tid =
      storage_->commit({{lab.zblk_of(3), payload_record(KnownClass::kZBlk0, noise(1, 101))}});
  const auto view = lab.view().advance(tid, std::array{lab.zblk_of(3)});
  EXPECT_THAT(error_of(*view, 300, 5), AllOf(HasSubstr("block 3"), HasSubstr("101 bytes")));
}

TEST_F(ViewTest, ObjectMissingOrOfAnotherClass_IsCorrupt) {
  VolumeLab lab(storage_, "/a", 100);
  lab.write_block(3, noise(1, 100));
  lab.commit();
  const Oid zblk = lab.zblk_of(3);
  Tid tid = storage_->commit({{zblk, payload_record(KnownClass::kZData, noise(1, 9))}});
  EXPECT_THAT(error_of(*View::open(storage_, lab.volume(), tid), 300, 5),
              HasSubstr("ZData and is referred to as a wendelin.bigfile.file_zodb.ZBlk0"));
  tid = storage_->commit({{zblk, std::nullopt}});
  EXPECT_THAT(error_of(*View::open(storage_, lab.volume(), tid), 300, 5),
              HasSubstr("does not exist"));
}

TEST_F(ViewTest, Advance_OldViewKeepsItsTime) {
  VolumeLab lab(storage_, "/a", 4096);
  lab.write_block(0, noise(1, 4096));
  lab.commit();
  const auto old = View::open(storage_, lab.volume(), lab.at());
  Bytes out(4096);
  old->read(0, out);
  lab.write_block(0, noise(2, 4096));
  lab.write_block(9, noise(3, 4096));
  lab.commit();
  const auto changed = storage_->changed_oids(old->at(), lab.at());
  const auto moved = old->advance(lab.at(), changed);
  moved->read(0, out);
  EXPECT_EQ(out, noise(2, 4096));
  old->read(0, out);
  EXPECT_EQ(out, noise(1, 4096));
  EXPECT_EQ(old->size(), 4096u);
  EXPECT_EQ(moved->size(), 10 * 4096u);
  old->read(9 * 4096, out);
  EXPECT_EQ(out, Bytes(4096));
  // And once more from the old one, whose caches have moved on.
  const auto again = old->advance(lab.at(), changed);
  again->read(9 * 4096, out);
  EXPECT_EQ(out, noise(3, 4096));
  moved->read(0, out);
  EXPECT_EQ(out, noise(2, 4096));
}

TEST_F(ViewTest, ReadersAndAdvanceAtOnce_EachSeesItsOwnTime) {
  VolumeLab lab(storage_, "/a", 4096);
  const auto fill = [&](std::uint64_t n) {
    for (std::uint64_t block = 0; block < 20; ++block) lab.write_block(block, noise(n, 4096));
    lab.commit(n % 2 == 0 ? BlockFormat::kZBlk0 : BlockFormat::kZBlk1);
  };
  fill(0);
  std::mutex mutex;
  std::pair<std::shared_ptr<const View>, std::uint64_t> current{
      View::open(storage_, lab.volume(), lab.at()), 0};
  std::atomic<int> wrong = 0;
  std::vector<std::jthread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&](const std::stop_token& stop) {
      Bytes out(4096);
      for (std::uint64_t block = 0; !stop.stop_requested(); block = (block + 7) % 20) {
        const auto [view, n] = [&] {
          const std::scoped_lock lock(mutex);
          return current;
        }();
        view->read(block * 4096, out);
        if (out != noise(n, 4096)) ++wrong;
      }
    });
  }
  for (std::uint64_t n = 1; n < 40; ++n) {
    const Tid before = lab.at();
    fill(n);
    const auto next = current.first->advance(lab.at(), storage_->changed_oids(before, lab.at()));
    const std::scoped_lock lock(mutex);
    current = {next, n};
  }
  for (auto& reader : readers) reader.request_stop();
  readers.clear();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace zbig
