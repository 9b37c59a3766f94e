// SPDX-License-Identifier: BSD-3-Clause
#include <map>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/filestorage_lab.h"
#include "tests/support/temp_dir.h"
#include "zodb/error.h"
#include "zodb/filestorage/filestorage.h"
#include "zodb/filestorage/index.h"

namespace zbig::fs {
namespace {

using test::TempDir;
using ::testing::HasSubstr;

std::string text(std::initializer_list<int> bytes) {
  std::string out;
  for (const int byte : bytes) out += static_cast<char>(byte);
  return out;
}

Bytes bytes(const std::string& text) {
  const auto view = as_bytes(text);
  return Bytes(view.begin(), view.end());
}

std::unique_ptr<IndexImage> image_of(const std::string& content) {
  return IndexImage::from_bytes(bytes(content), "the index");
}

// Random oids of every density against std::map, through deltas, merges and merges of merges.
TEST(FileStorageIndex, RandomOids_FindWhatAMapFinds) {
  std::mt19937_64 random(7);
  for (const std::uint64_t spread :
       {std::uint64_t{100000}, std::uint64_t{1} << 22, std::uint64_t{1} << 40, ~std::uint64_t{0}}) {
    Index index;
    std::map<Oid, std::uint64_t> model;
    std::uint64_t position = 27;
    for (int round = 0; round < 6; ++round) {
      for (int i = 0; i < 20000; ++i) {
        const Oid oid{random() % spread};
        position += 50 + random() % 1000;
        index.set(oid, position);
        model[oid] = position;
      }
      if (round % 2 == 1) index.adopt(index.merged(position + 50, "the index"));
      EXPECT_EQ(index.largest(), model.rbegin()->first);
      for (const auto& [oid, at] : model) {
        ASSERT_EQ(index.find(oid), at);
        const Oid next{oid.value + 1};
        ASSERT_EQ(index.find(next).has_value(), model.contains(next));
      }
    }
    EXPECT_EQ(index.image().size(), model.size());
  }
}

TEST(FileStorageIndex, AscendingOids_CostEightBytesAnObject) {
  Index index;
  for (std::uint64_t i = 0; i < 1000000; ++i) index.set(Oid{i}, 100 + i * 60);
  const auto image = index.merged(100 + 1000000 * 60, "the index");
  ASSERT_TRUE(image->canonical_buckets());
  EXPECT_LE(image->canonical_buckets()->size(), 8000000u + 16 * 24);
}

TEST(FileStorageIndex, Head_IsThePickleThatPythonWrites) {
  const auto head = [](std::uint64_t covered) {
    return std::string(as_text(IndexImageWriter::head(covered)));
  };
  EXPECT_EQ(head(4), text({0x80, 3, 'K', 4, '.'}));
  EXPECT_EQ(head(0xff), text({0x80, 3, 'K', 0xff, '.'}));
  EXPECT_EQ(head(460), text({0x80, 3, 'M', 0xcc, 1, '.'}));
  EXPECT_EQ(head(0x7fffffff), text({0x80, 3, 'J', 0xff, 0xff, 0xff, 0x7f, '.'}));
  EXPECT_EQ(head(0x80000000), text({0x80, 3, 0x8a, 5, 0, 0, 0, 0x80, 0, '.'}));
  EXPECT_EQ(head(0x7fffffffffff),
            text({0x80, 3, 0x8a, 6, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, '.'}));
  EXPECT_EQ(head(0x800000000000), text({0x80, 3, 0x8a, 7, 0, 0, 0, 0, 0, 0x80, 0, '.'}));
  for (const std::uint64_t covered : {4ull, 0xffull, 460ull, 0x7fffffffull, 0x80000000ull,
                                      0x7fffffffffffull, 0x800000000000ull}) {
    const auto image = image_of(head(covered) + "\x80\x03N.");
    ASSERT_TRUE(image);
    EXPECT_EQ(image->covered(), covered);
  }
}

const std::string kPrefix = text({0, 0, 0, 0, 0, 1});
const std::string kBlob = text({0, 5, 0, 9, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0});

TEST(FileStorageIndex, FormsOfPython2_AreRead) {
  const std::string proto3 = "\x80\x03";
  for (const std::string& content : {
           // protocol 3 by Python 2's pickler
           proto3 + "M\x10\x27." + proto3 + "U\x06" + kPrefix + "U\x10" + kBlob + "\x86." + proto3 +
               "N.",
           // protocol 1: no PROTO, MARK and TUPLE, memo puts
           "M\x10\x27.(U\x06" + kPrefix + "q\x01U\x10" + kBlob + "q\x02tq\x03.N.",
           // a 64-bit int of protocol 1, and long strings
           "I10000\n.(T" + text({6, 0, 0, 0}) + kPrefix + "T" + text({16, 0, 0, 0}) + kBlob +
               "t.N.",
           "L10000L\n.(U\x06" + kPrefix + "U\x10" + kBlob + "t.N.",
       }) {
    const auto image = image_of(content);
    ASSERT_TRUE(image);
    EXPECT_EQ(image->covered(), 10000u);
    EXPECT_EQ(image->find(Oid{0x10005}), 0x100u);
    EXPECT_EQ(image->find(Oid{0x10009}), 0x200u);
    EXPECT_FALSE(image->find(Oid{0x10006}));
    EXPECT_FALSE(image->find(Oid{0x00005}));
    EXPECT_FALSE(image->canonical_buckets());  // is not saved as it is
  }
}

TEST(FileStorageIndex, MalformedFile_IsNoIndex) {
  const std::string good =
      "\x80\x03M\x10\x27.\x80\x03"
      "C\x06" +
      kPrefix + "C\x10" + kBlob + "\x86.\x80\x03N.";
  ASSERT_TRUE(image_of(good));
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(image_of(good.substr(0, size))) << size;
  }
  const std::string pair =
      "\x80\x03"
      "C\x06" +
      kPrefix + "C\x10" + kBlob + "\x86.";
  const std::string head = "\x80\x03M\x10\x27.";
  EXPECT_FALSE(image_of(head + pair + pair + "\x80\x03N."));  // prefixes do not ascend
  EXPECT_FALSE(image_of(head +
                        "\x80\x03"
                        "C\x05" +
                        kPrefix.substr(1) + "C\x10" + kBlob + "\x86.N."));
  EXPECT_FALSE(image_of(head +
                        "\x80\x03"
                        "C\x06" +
                        kPrefix + "C\x0f" + kBlob.substr(1) + "\x86.N."));
  EXPECT_FALSE(image_of(head +
                        "\x80\x03"
                        "C\x06" +
                        kPrefix + text({'C', 0}) + "\x86.N."));
  EXPECT_FALSE(image_of(head +
                        "\x80\x03"
                        "C\x06" +
                        kPrefix + "B\xff\xff\xff\xff" + kBlob + "\x86.N."));
  EXPECT_FALSE(image_of("\x80\x03}q\x00(U\x05index"));  // the dict of long ago
}

TEST(FileStorageIndex, DamagedBucket_IsCorruptWhenSearched) {
  for (const auto& blob : {text({0, 9, 0, 5, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0}),     // order
                           text({0, 5, 0, 5, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0}),     // twice
                           text({0, 5, 0, 9, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 0}),     // past
                           text({0, 5, 0, 9, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 2, 0})}) {  // before
    const auto image = image_of(
        "\x80\x03M\x10\x27.\x80\x03"
        "C\x06" +
        kPrefix + "C\x10" + blob + "\x86.\x80\x03N.");
    ASSERT_TRUE(image);
    const auto [code, sentence] = test::error_of([&] { image->find(Oid{0x10005}); });
    EXPECT_EQ(code, ErrorCode::kCorrupt);
    EXPECT_THAT(sentence, HasSubstr("the index: entry for object 0x1000"));
  }
}

// An index file, whatever is in it, never changes what is read.
class IndexFile : public ::testing::Test {
 protected:
  IndexFile() {
    const auto storage = open_filestorage(path, OpenMode::kCreate);
    for (int i = 0; i < 20; ++i) {
      test::commit(*storage, {{Oid{0}, "root " + std::to_string(i)},
                              {storage->new_oid(), "object " + std::to_string(i)}});
    }
    content = test::content_of(*storage);
  }

  void expect_content() {
    EXPECT_EQ(test::content_of(*open_filestorage(path, OpenMode::kRead)), content);
    EXPECT_EQ(test::content_of(*open_filestorage(path, OpenMode::kWrite)), content);
  }

  TempDir dir;
  std::string path = dir / "Data.fs";
  std::string index = path + ".index";
  std::string content;
};

TEST_F(IndexFile, AfterClose_CoversEverything) {
  const auto image = IndexImage::map(index);
  ASSERT_TRUE(image);
  EXPECT_EQ(image->covered(), std::filesystem::file_size(path));
  EXPECT_EQ(image->size(), 21u);
  expect_content();
}

TEST_F(IndexFile, Absent_IsMadeByAWriterOnly) {
  const auto saved = test::slurp(index);
  std::filesystem::remove(index);
  open_filestorage(path, OpenMode::kRead);
  EXPECT_FALSE(std::filesystem::exists(index));
  expect_content();
  EXPECT_EQ(test::slurp(index), saved);
}

TEST_F(IndexFile, CutAnywhere_IsIgnored) {
  const auto saved = test::slurp(index);
  for (std::size_t size = 0; size < saved.size(); ++size) {
    test::spew(index, saved.substr(0, size));
    ASSERT_EQ(test::content_of(*open_filestorage(path, OpenMode::kRead)), content);
  }
  expect_content();
}

TEST_F(IndexFile, AnyByteTurned_GivesAnErrorOrTheSame) {
  const auto saved = test::slurp(index);
  for (std::size_t i = 0; i < saved.size(); ++i) {
    auto damaged = saved;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x11);
    test::spew(index, damaged);
    const auto storage = open_filestorage(path, OpenMode::kRead);
    for (std::uint64_t oid = 0; oid <= 20; ++oid) {
      try {
        const auto record = storage->load(Oid{oid}, kMaxTid);
        const auto wanted = oid == 0 ? "root 19" : "object " + std::to_string(oid - 1);
        ASSERT_EQ(test::text_of(record), wanted) << "byte " << i;
      } catch (const Corrupt&) {
      }
    }
  }
}

TEST_F(IndexFile, OfAnotherFile_IsIgnored) {
  const auto other = dir / "other.fs";
  {
    const auto storage = open_filestorage(other, OpenMode::kCreate);
    for (int i = 0; i < 10; ++i) test::commit(*storage, {{storage->new_oid(), "other"}});
  }
  std::filesystem::copy_file(other + ".index", index,
                             std::filesystem::copy_options::overwrite_existing);
  expect_content();
}

TEST_F(IndexFile, Old_IsContinued) {
  const auto old = test::slurp(index);
  {
    const auto storage = open_filestorage(path, OpenMode::kWrite);
    test::commit(*storage, {{Oid{3}, "newer"}, {storage->new_oid(), "new"}});
    content = test::content_of(*storage);
  }
  test::spew(index, old);
  expect_content();
}

TEST_F(IndexFile, ObjectTwiceInTheLastTransaction_IsStillUsed) {
  {
    const auto storage = open_filestorage(path, OpenMode::kWrite);
    const auto transaction = storage->begin({});
    const auto base = storage->locate(Oid{1}, kMaxTid)->serial;
    transaction->store(Oid{1}, base, as_bytes("first"));
    transaction->store(Oid{1}, base, as_bytes("second"));
    transaction->vote();
    transaction->finish();
    EXPECT_EQ(test::text_of(storage->load(Oid{1}, kMaxTid)), "second");
  }
  const auto storage = open_filestorage(path, OpenMode::kRead);
  EXPECT_EQ(test::text_of(storage->load(Oid{1}, kMaxTid)), "second");
}

}  // namespace
}  // namespace zbig::fs
