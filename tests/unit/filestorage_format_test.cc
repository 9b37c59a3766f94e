// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include "tests/support/filestorage_lab.h"
#include "tests/support/format_page.h"
#include "tests/support/temp_dir.h"
#include "zodb/filestorage/index_file.h"
#include "zodb/filestorage/log.h"
#include "zodb/filestorage/transaction_writer.h"

// The worked example of docs/formats/filestorage.md, read from the page: zbig reads those bytes as
// the page says, and writes the same ones.

namespace zbig::fs {
namespace {

constexpr Tid kFirst{0x03f5945815555555};
constexpr Tid kSecond{0x03f594581bbbbbbb};

struct Example {
  std::map<std::string, Bytes> page = test::hex_examples("filestorage.md");
  Bytes file = page.at("Data.fs");
  Bytes index = page.at("Data.fs.index");
  ByteView root_before = ByteView(file).subspan(0x5e, 64);
  ByteView root_after = ByteView(file).subspan(0xff, 0x5b);
  ByteView object = ByteView(file).subspan(0x184, 64);
  Bytes extension = Bytes(file.begin() + 0xc4, file.begin() + 0xd5);
};

TEST(FileStorageFormat, BytesOfThePage_ReadAsThePageSays) {
  const Example example;
  const test::TempDir dir;
  for (const bool with_index : {false, true}) {
    const auto path = dir / (with_index ? "with.fs" : "without.fs");
    test::spew(path, as_text(example.file));
    if (with_index) test::spew(path + ".index", as_text(example.index));
    const auto storage = open_filestorage(path, OpenMode::kRead);
    EXPECT_EQ(storage->last_tid(), kSecond);

    const auto cursor = storage->transactions(kNoTid, kMaxTid, false);
    const auto first = cursor->next();
    ASSERT_TRUE(first);
    EXPECT_EQ(first->tid, kFirst);
    EXPECT_EQ(first->description, "initial database creation");
    const auto second = cursor->next();
    ASSERT_TRUE(second);
    EXPECT_EQ(second->user, "jo");
    EXPECT_EQ(second->description, "add a");
    EXPECT_EQ(second->extension, example.extension);
    EXPECT_EQ(second->stored.size(), 2u);
    EXPECT_FALSE(cursor->next());

    EXPECT_EQ(test::text_of(storage->load(kRootOid, kFirst)), as_text(example.root_before));
    EXPECT_EQ(test::text_of(storage->load(kRootOid, kMaxTid)), as_text(example.root_after));
    EXPECT_EQ(test::text_of(storage->load(Oid{1}, kMaxTid)), as_text(example.object));
    EXPECT_FALSE(storage->load(Oid{1}, kFirst));
    EXPECT_EQ(storage->locate(Oid{1}, kSecond)->position, 0x184u);
  }
}

TEST(FileStorageFormat, TransactionsOfThePage_AreWrittenAsOnThePage) {
  const Example example;
  const test::TempDir dir;
  const auto path = dir / "Data.fs";
  create_log(path);
  auto log = open_log(path, DataFile::Access::kWrite, 0);
  const auto commit = [&](Tid tid, const TransactionMeta& meta,
                          std::vector<std::pair<Oid, ByteView>> records) {
    TransactionWriter writer(*log.file, log.committed.end, tid, meta);
    for (const auto& [oid, data] : records) {
      writer.add(oid, log.index.find(oid).value_or(0), std::span(&data, 1));
    }
    writer.vote();
    writer.finish();
    log.add(writer.transaction());
  };
  commit(kFirst, {"", "initial database creation", {}}, {{kRootOid, example.root_before}});
  commit(kSecond, {"jo", "add a", example.extension},
         {{kRootOid, example.root_after}, {Oid{1}, example.object}});
  EXPECT_EQ(test::slurp(path), as_text(example.file));

  const auto image = log.index.merged(log.committed.end, "the index");
  save_index(path, *image, log.committed.end);
  EXPECT_EQ(test::slurp(path + ".index"), as_text(example.index));
}

}  // namespace
}  // namespace zbig::fs
