// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/volume.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bigfile/folder.h"
#include "bigfile/view.h"
#include "tests/support/memory_storage.h"
#include "zodb/error.h"
#include "zodb/filestorage/filestorage.h"
#include "zodb/pickle_writer.h"
#include "zodb/record.h"

// The catalogue: names, folders, arrays, and volumes that are made. Databases of the originals are
// walked in view_data_test.cc.

namespace zbig {
namespace {

using test::MemoryStorage;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

NewVolume bare(std::uint64_t blksize, std::uint64_t raw_size = 0) {
  NewVolume volume;
  volume.blksize = blksize;
  volume.raw_size = raw_size;
  return volume;
}
NewVolume array(const ArrayInfo& info) {
  NewVolume volume;
  volume.array = info;
  return volume;
}

class VolumeTest : public ::testing::Test {
 protected:
  Tid create(const std::string& path, const NewVolume& volume = {}) {
    return create_volume(storage_, path, volume);
  }
  Volume find(const std::string& name) { return find_volume(storage_, name, storage_.last_tid()); }
  std::vector<std::string> list() {
    errors_.clear();
    std::vector<std::string> paths;
    for (const Volume& volume :
         list_volumes(storage_, storage_.last_tid(),
                      [this](const std::string& error) { errors_.push_back(error); })) {
      paths.push_back(volume.path);
    }
    return paths;
  }
  template <class E>
  std::string error_of(const std::string& name) {
    try {
      find(name);
    } catch (const E& error) {
      return error.what();
    }
    return "no error, or another one";
  }
  Bytes record(Oid oid) { return storage_.load(oid, storage_.last_tid())->data; }

  MemoryStorage storage_;
  std::vector<std::string> errors_;
};

TEST_F(VolumeTest, EmptyDatabase_HasNoVolumes) {
  EXPECT_THAT(list(), IsEmpty());
  EXPECT_THAT(error_of<NotFound>("/a"), HasSubstr("the database is empty"));
}

TEST_F(VolumeTest, Create_MakesRootFoldersAndFileInOneTransaction) {
  const Tid tid = create("/site/data/a", bare(65536));
  EXPECT_EQ(storage_.last_tid(), tid);
  EXPECT_EQ(storage_.stored(tid).size(), 5u);
  const Volume volume = find("/site/data/a");
  EXPECT_EQ(volume.kind, VolumeKind::kFile);
  EXPECT_EQ(volume.blksize, 65536u);
  EXPECT_EQ(volume.serial, tid);
  EXPECT_EQ(volume.oid, volume.zfile);
  create("/site/b");
  create("/c");
  EXPECT_THAT(list(), ElementsAre("/c", "/site/b", "/site/data/a"));
  EXPECT_EQ(find("oid:" + short_hex(volume.oid)).blktab, volume.blktab);
}

TEST_F(VolumeTest, Create_ArraysOfManyTypes) {
  struct Case {
    std::string dtype;
    std::vector<std::uint64_t> shape;
    std::string str;
    std::uint64_t nbytes;
  };
  int n = 0;
  for (const Case& c :
       {Case{"<f8", {10, 3}, "<f8", 240}, Case{"u1", {7}, "|u1", 7}, Case{">i4", {5}, ">i4", 20},
        Case{"|S5", {3}, "|S5", 15}, Case{"<U3", {2}, "<U3", 24}, Case{"V16", {2}, "|V16", 32},
        Case{"c16", {0, 4}, "<c16", 0}}) {
    const std::string path = "/t" + std::to_string(++n);
    ArrayInfo info;
    info.dtype = c.dtype;
    info.shape = c.shape;
    info.order = n % 2 == 0 ? 'F' : 'C';
    create(path, array(info));
    const Volume volume = find(path);
    ASSERT_TRUE(volume.array) << c.dtype;
    EXPECT_EQ(volume.array->dtype, c.str);
    EXPECT_EQ(volume.array->shape, c.shape);
    EXPECT_EQ(volume.array->order, info.order);
    EXPECT_EQ(volume.array->nbytes, c.nbytes);
    EXPECT_NE(volume.oid, volume.zfile);
  }
}

TEST_F(VolumeTest, CreateWithRawSize_IsThatLong) {
  create("/a", bare(4096, 5000));
  const std::shared_ptr<const Storage> borrowed(&storage_, [](const Storage*) {});
  const auto view = View::open(borrowed, find("/a"), storage_.last_tid());
  EXPECT_EQ(view->size(), 8192u);
  Bytes bytes(8192, std::byte{1});
  view->read(0, bytes);
  EXPECT_EQ(bytes, Bytes(8192));
}

TEST_F(VolumeTest, Create_WhatIsThereIsRefusedAndStays) {
  create("/a/b");
  const Tid before = storage_.last_tid();
  EXPECT_THROW(create("/a/b"), Invalid);
  EXPECT_THROW(create("/a"), Invalid);
  EXPECT_THROW(create("/a/b/c"), Invalid);
  EXPECT_THROW(create("oid:7"), Invalid);
  EXPECT_THROW(create("a"), Invalid);
  EXPECT_THROW(create("/"), Invalid);
  EXPECT_THROW(create("/x//y"), Invalid);
  EXPECT_THROW(create("/x/"), Invalid);
  EXPECT_THROW(create("/x\n"), Invalid);
  EXPECT_THROW(create("/x\xff"), Invalid);
  EXPECT_THROW(create("/x", bare(0)), Invalid);
  EXPECT_THROW(create("/x", bare(std::uint64_t{1} << 31)), Invalid);
  ArrayInfo info;
  info.dtype = "<f8";
  EXPECT_THROW(create("/x", array(info)), Invalid);
  info.shape = {std::uint64_t{1} << 60};
  EXPECT_THROW(create("/x", array(info)), Invalid);
  info.shape = {0, std::uint64_t{1} << 40, std::uint64_t{1} << 40};
  EXPECT_THROW(create("/x", array(info)), Invalid);
  info.dtype = "O";
  info.shape = {1};
  EXPECT_THROW(create("/x", array(info)), Invalid);
  EXPECT_EQ(storage_.last_tid(), before);
}

// A folder is somebody else's object: all that it holds stays.
TEST_F(VolumeTest, CreateInAFolderOfOddThings_KeepsThem) {
  for (const Flavour flavour : {Flavour::kPython3, Flavour::kPython2Protocol3,
                                Flavour::kPython2Protocol2, Flavour::kPython2Protocol1}) {
    MemoryStorage storage;
    RecordWriter root(flavour, ClassId::of(KnownClass::kPersistentMapping).name());
    root.begin_dict(1);
    root.text("data");
    root.begin_dict(3);
    root.text("twice");
    root.text("twice");  // by its memo number; another program may not have shared it
    root.text("number");
    root.integer(5);
    root.text("nested");
    root.begin_tuple(2);
    root.bytes(as_bytes("abc"));
    root.none();
    root.end_tuple();
    root.end_dict();
    root.end_dict();
    storage.commit({{kRootOid, root.finish()}});
    create_volume(storage, "/v", {});
    create_volume(storage, "/w", {});
    EXPECT_THROW(create_volume(storage, "/number", {}), Invalid);
    const auto object = load_object(storage, kRootOid, storage.last_tid());
    const auto data = object->record.state().get("data");
    ASSERT_TRUE(data);
    EXPECT_EQ(data->size(), 10u);
    EXPECT_EQ(data->get("number")->integer(), 5);
    EXPECT_EQ(as_text(*data->get("twice")->bytes()), "twice");
    EXPECT_EQ(data->get("nested")->size(), 2u);
    EXPECT_EQ(find_volume(storage, "/w", storage.last_tid()).blksize, 2u << 20);
    EXPECT_EQ(detect_flavour(object->record.data()), flavour);
  }
}

// Protocol 3, memo numbers and a float, as no RecordWriter writes it.
TEST_F(VolumeTest, CreateInAFolderThatCannotBeWrittenAnew_AppendsTheEntry) {
  using namespace std::string_literals;
  const std::string record =
      "\x80\x03"s
      "cpersistent.mapping\nPersistentMapping\nq\0."s
      "\x80\x03}q\x01X\x04\0\0\0dataq\x02}q\x03X\x01\0\0\0fq\x04G?\xf8\0\0\0\0\0\0ss."s;
  const ByteView bytes = as_bytes(record);
  storage_.commit({{kRootOid, Bytes(bytes.begin(), bytes.end())}});
  create("/v");
  create("/site/w");
  EXPECT_THAT(list(), ElementsAre("/site/w", "/v"));
  const auto object = load_object(storage_, kRootOid, storage_.last_tid());
  EXPECT_EQ(object->record.state().get("data")->get("f")->real(), 1.5);
}

TEST_F(VolumeTest, WrongNames_SayWhatIsThere) {
  create("/site/data/a");
  create("/site/b");
  EXPECT_THAT(error_of<NotFound>("/A"), HasSubstr("no volume /A in memory:"));
  EXPECT_THAT(error_of<NotFound>("/A"), HasSubstr("/ is a persistent mapping with site"));
  EXPECT_THAT(error_of<NotFound>("/site"), HasSubstr("/site is a persistent mapping with "));
  EXPECT_THAT(error_of<NotFound>("/site/data/x"),
              HasSubstr("/site/data is a persistent mapping with a"));
  EXPECT_THAT(error_of<NotFound>("/site/b/c"),
              HasSubstr("/site/b is no folder but a wendelin.bigfile.file_zodb.ZBigFile"));
  for (const char* name : {"", "a", "/", "//", "/a/", "oid:", "oid:xyz", "oid:11112222333344445"}) {
    EXPECT_THROW(find(name), Invalid) << name;
  }
  EXPECT_THROW(find("oid:ffff"), NotFound);
  EXPECT_THROW(find("oid:0"), Invalid);  // the root is no volume
}

TEST_F(VolumeTest, BrokenObjectOnTheWay_IsReportedAndLeftOut) {
  create("/good");
  create("/bad");
  Bytes broken = record(find("/bad").oid);
  broken.resize(broken.size() - 3);
  storage_.commit({{find("/bad").oid, broken}});
  EXPECT_THAT(list(), ElementsAre("/good"));
  ASSERT_EQ(errors_.size(), 1u);
  EXPECT_THAT(errors_[0], HasSubstr("/bad"));
  EXPECT_THROW(find("/bad"), Corrupt);
  storage_.commit({{find("/good").blktab, std::nullopt}});
  EXPECT_THAT(list(), ElementsAre("/good"));  // its table is looked at when it is read
}

TEST_F(VolumeTest, FolderReachedTwiceOrThroughItself_IsListedOnce) {
  create("/f/v");
  const auto entries = list_entries(storage_, *load_object(storage_, kRootOid, storage_.last_tid()),
                                    storage_.last_tid());
  const Oid folder = entries.front().oid;
  RecordWriter root(Flavour::kPython3, ClassId::of(KnownClass::kPersistentMapping).name());
  root.begin_dict(1);
  root.text("data");
  root.begin_dict(3);
  for (const char* name : {"f", "again", "self"}) {
    root.text(name);
    root.ref(name == std::string("self") ? kRootOid : folder,
             ClassId::of(KnownClass::kPersistentMapping).name());
  }
  root.end_dict();
  root.end_dict();
  storage_.commit({{kRootOid, root.finish()}});
  EXPECT_EQ(list().size(), 1u);
  EXPECT_EQ(find("/self/self/again/v").blktab, find("/f/v").blktab);
}

TEST_F(VolumeTest, NameThatNoPathCanSay_IsListedByOid) {
  create("/a");
  RecordWriter root(Flavour::kPython3, ClassId::of(KnownClass::kPersistentMapping).name());
  root.begin_dict(1);
  root.text("data");
  root.begin_dict(2);
  const Oid oid = find("/a").oid;
  for (const char* name : {"with/slash", ""}) {
    root.text(name);
    root.ref(oid, ClassId::of(KnownClass::kZBigFile).name());
  }
  root.end_dict();
  root.end_dict();
  storage_.commit({{kRootOid, root.finish()}});
  const std::string path = "oid:" + short_hex(oid);
  EXPECT_THAT(list(), ElementsAre(path, path));
  EXPECT_EQ(find(path).oid, oid);
}

}  // namespace
}  // namespace zbig
