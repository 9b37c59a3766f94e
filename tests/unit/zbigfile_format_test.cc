// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bigfile/array.h"
#include "bigfile/commit.h"
#include "bigfile/volume.h"
#include "tests/support/format_page.h"
#include "tests/support/memory_storage.h"
#include "tests/support/volume_lab.h"
#include "zodb/btree.h"
#include "zodb/payload.h"
#include "zodb/pickle_writer.h"
#include "zodb/record.h"

// The examples of docs/formats/zbigfile.md: each says what the page says, and is what zbig writes,
// on a database of that flavour, but for the number of the object in it.

namespace zbig {
namespace {

Bytes example(const std::string& name) {
  static const auto examples = test::hex_examples("zbigfile.md");
  return examples.at(name);
}

// With the one oid in the record changed.
Bytes with_oid(Bytes record, Oid from, Oid to) {
  Bytes wanted(8);
  put_be<8>(wanted.data(), from.value);
  auto at = std::search(record.begin(), record.end(), wanted.begin(), wanted.end());
  EXPECT_NE(at, record.end());
  put_be<8>(&*at, to.value);
  return record;
}

// A database whose root was written in that flavour.
std::shared_ptr<test::MemoryStorage> database(Flavour flavour) {
  auto storage = std::make_shared<test::MemoryStorage>();
  RecordWriter root(flavour, ClassId::of(KnownClass::kPersistentMapping).name());
  root.begin_dict(1);
  root.text("data");
  root.begin_dict(0);
  root.end_dict();
  root.end_dict();
  storage->commit({{kRootOid, root.finish()}});
  return storage;
}

constexpr Flavour kFlavours[] = {Flavour::kPython3, Flavour::kPython2Protocol3,
                                 Flavour::kPython2Protocol2, Flavour::kPython2Protocol1};
const char* suffix(Flavour flavour) {
  switch (flavour) {
    case Flavour::kPython3:
      return "";
    case Flavour::kPython2Protocol3:
      return "-py2-protocol3";
    case Flavour::kPython2Protocol2:
      return "-py2-protocol2";
    case Flavour::kPython2Protocol1:
      return "-py2-protocol1";
  }
  return "";
}

TEST(ZBigFileFormat, Records_AreWrittenAsThePageShows) {
  for (const Flavour flavour : kFlavours) {
    SCOPED_TRACE(suffix(flavour));
    const auto storage = database(flavour);
    test::VolumeLab lab(storage, "/a", 2u << 20);
    const Oid blktab = lab.volume().blktab;
    const auto load = [&](Oid oid) { return storage->load(oid, storage->last_tid())->data; };
    if (flavour == Flavour::kPython3) {
      EXPECT_EQ(load(lab.volume().zfile), with_oid(example("zbigfile"), Oid{5}, blktab));
    } else if (flavour != Flavour::kPython2Protocol3) {
      EXPECT_EQ(load(lab.volume().zfile),
                with_oid(example(std::string("zbigfile") + suffix(flavour)), Oid{0x47}, blktab));
    }
    lab.write(0, as_bytes("Hello"));
    lab.commit();
    if (flavour == Flavour::kPython3) {
      EXPECT_EQ(load(lab.zblk_of(0)), example("zblk0"));
    }
    lab.write(2u << 20, as_bytes("tail\xff"));
    lab.commit(BlockFormat::kZBlk1);
    const Oid zblk1 = lab.zblk_of(1);
    const Oid chunktab = ObjectRecord::parse(load(zblk1)).state().ref()->oid;
    const Oid in_example{flavour == Flavour::kPython3 ? 8u : 4u};
    EXPECT_EQ(load(zblk1),
              with_oid(example(std::string("zblk1") + suffix(flavour)), in_example, chunktab));
    if (flavour == Flavour::kPython3) {
      const StorageNodeSource source(*storage, storage->last_tid());
      const auto zdata = BTree(source, chunktab, KnownClass::kIOBTree).find(0);
      EXPECT_EQ(load(zdata->oid), example("zdata"));
    }
    EXPECT_EQ(lab.differs(), "");
  }
}

TEST(ZBigFileFormat, ZBigArray_IsReadAndWrittenAsThePageShows) {
  const Bytes golden = example("zbigarray");
  const ArrayState state = decode_array(ObjectRecord::parse(golden).state());
  EXPECT_EQ(state.info.dtype, "<i8");
  EXPECT_EQ(state.info.shape, (std::vector<std::uint64_t>{10}));
  EXPECT_EQ(state.info.order, 'C');
  EXPECT_EQ(state.info.nbytes, 80u);
  EXPECT_EQ(state.zfile.oid, Oid{3});
  EXPECT_EQ(encode_array(state.info, Oid{3}, Flavour::kPython3), golden);
}

TEST(ZBigFileFormat, PayloadsOfThePage_AreFound) {
  for (const auto& [name, text] : {std::pair("zblk0", "Hello"), std::pair("zdata", "tail\xff")}) {
    const Bytes record = example(name);
    const auto head = payload_head(record, record.size());
    ASSERT_TRUE(head);
    EXPECT_EQ(as_text(ByteView(record).subspan(head->offset, head->length)), text);
  }
}

}  // namespace
}  // namespace zbig
