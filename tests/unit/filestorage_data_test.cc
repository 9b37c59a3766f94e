// SPDX-License-Identifier: BSD-3-Clause
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/filestorage_lab.h"
#include "tests/support/json.h"
#include "tests/support/paths.h"
#include "tests/support/sha256.h"
#include "tests/support/temp_dir.h"
#include "zodb/error.h"
#include "zodb/filestorage/filestorage.h"

// FileStorage against databases that ZODB 4 to 6 wrote on Python 2 and 3: every transaction and
// every record, forwards and backwards, with and without the index; and damaged ones.

namespace zbig {
namespace {

using test::Json;
using test::test_data;
using ::testing::HasSubstr;

std::vector<std::string> databases_of(const std::string& folder) {
  std::vector<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (std::filesystem::exists(entry.path() / "Data.fs")) out.push_back(entry.path().filename());
  }
  std::sort(out.begin(), out.end());
  return out;
}

class FileStorageOriginal : public ::testing::TestWithParam<std::string> {};

TEST_P(FileStorageOriginal, EveryRecord_AsTheOriginalReadIt) {
  const auto folder = test_data("original/" + GetParam());
  const auto manifest = Json::parse_file(folder + "/manifest.json");
  const auto storage = open_filestorage(folder + "/Data.fs", OpenMode::kRead);
  EXPECT_EQ(storage->last_tid().hex(), manifest["last_tid"].text());

  const auto cursor = storage->transactions(kNoTid, kMaxTid, false);
  std::map<Oid, std::optional<std::string>> head;
  std::vector<TransactionInfo> all;
  for (const auto& expected : manifest["transactions"].list()) {
    const auto info = cursor->next();
    ASSERT_TRUE(info);
    EXPECT_EQ(info->tid.hex(), expected["tid"].text());
    EXPECT_EQ(std::string(1, info->status), expected["status"].text());
    EXPECT_EQ(info->user, expected["user"].text());
    EXPECT_EQ(info->description, expected["description"].text());
    EXPECT_EQ(info->stored.size(), expected["count"].number());
    all.push_back(*info);
    if (expected["records"].is_null()) {  // too many to be listed
      for (const auto& stored : info->stored) head.erase(stored.oid);
      continue;
    }
    ASSERT_EQ(info->stored.size(), expected["records"].list().size());
    for (std::size_t i = 0; i < info->stored.size(); ++i) {
      const auto& [oid, size] = info->stored[i];
      const auto& record = expected["records"][i];
      ASSERT_EQ(oid.hex(), record[0].text());
      const auto loaded = storage->load(oid, info->tid);
      const auto ref = storage->locate(oid, info->tid);
      ASSERT_EQ(loaded.has_value(), !record[1].is_null());
      ASSERT_EQ(ref.has_value(), loaded.has_value());
      head[oid] = loaded ? std::optional(record[1].text()) : std::nullopt;
      if (!loaded) continue;
      EXPECT_EQ(loaded->serial, info->tid);
      EXPECT_EQ(loaded->data.size(), size);
      EXPECT_EQ(test::sha256_hex(loaded->data).substr(0, 16), record[1].text());
      EXPECT_EQ(ref->serial, info->tid);
      Bytes again(ref->size);
      storage->read(*ref, 0, again);
      EXPECT_EQ(again, loaded->data);
    }
  }
  EXPECT_FALSE(cursor->next());

  const auto backwards = storage->transactions(kNoTid, kMaxTid, true);
  for (auto expected = all.rbegin(); expected != all.rend(); ++expected) {
    const auto info = backwards->next();
    ASSERT_TRUE(info);
    EXPECT_EQ(info->tid, expected->tid);
    EXPECT_EQ(info->stored.size(), expected->stored.size());
  }
  EXPECT_FALSE(backwards->next());

  std::vector<Oid> oids;
  for (const auto& [oid, hash] : head) oids.push_back(oid);
  std::vector<std::optional<Record>> records(oids.size());
  storage->load(oids, kMaxTid, Storage::kMaxLoad, records);
  for (std::size_t i = 0; i < oids.size(); ++i) {
    ASSERT_EQ(records[i].has_value(), head[oids[i]].has_value());
    if (!records[i]) continue;
    EXPECT_EQ(test::sha256_hex(records[i]->data).substr(0, 16), *head[oids[i]]);
  }
}

INSTANTIATE_TEST_SUITE_P(All, FileStorageOriginal,
                         ::testing::ValuesIn(databases_of(test_data("original"))),
                         [](const auto& info) {
                           auto name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

class FileStorageMore : public ::testing::TestWithParam<std::string> {};

TEST_P(FileStorageMore, Head_IsTheNewestWholeTransaction) {
  const auto folder = test_data("more/" + GetParam());
  const auto manifest = Json::parse_file(folder + "/manifest.json");
  int checked = 0;
  for (const auto& [name, database] : manifest["databases"].object()) {
    SCOPED_TRACE(name);
    ++checked;
    const auto path = folder + "/" + name;
    const auto damage = database["damaged"].is_null() ? "" : database["damaged"].text();
    if (damage == "bad-magic" || damage == "text") {
      const auto [code, sentence] =
          test::error_of([&] { open_filestorage(path, OpenMode::kRead); });
      EXPECT_EQ(code, ErrorCode::kCorrupt);
      EXPECT_THAT(sentence, HasSubstr(path + " at 0: "));
      continue;
    }
    const auto storage = open_filestorage(path, OpenMode::kRead);
    if (damage == "empty-file" || damage == "only-magic") {
      EXPECT_EQ(storage->last_tid(), kNoTid);
      EXPECT_FALSE(storage->locate(kRootOid, kMaxTid));
      continue;
    }
    if (!damage.empty()) {
      EXPECT_EQ(storage->last_tid().hex(), database["until"].text());
    }
    const auto& states = database["states"].list();
    const auto cursor = storage->transactions(kNoTid, kMaxTid, true);
    for (auto state = states.rbegin(); state != states.rend(); ++state) {
      // A step that changed nothing made no transaction: it is the state before once more.
      const auto before = std::next(state);
      if (before != states.rend() && (*before)["tid"].text() == (*state)["tid"].text()) continue;
      const auto info = cursor->next();
      ASSERT_TRUE(info);
      EXPECT_EQ(info->tid.hex(), (*state)["tid"].text());
      EXPECT_EQ(info->user, (*state)["user"].text());
      // What the manifest says of an undo is not in the database.
      if ((*state)["description"].text() == "undo of the newest") continue;
      EXPECT_EQ(info->description, (*state)["description"].text());
    }

    // The index beside it, good, stale or none, gives what a scan of everything gives.
    const test::TempDir dir;
    std::filesystem::copy(path, dir / "Data.fs");
    const auto scanned = open_filestorage(dir / "Data.fs", OpenMode::kRead);
    EXPECT_EQ(scanned->last_tid(), storage->last_tid());
    EXPECT_EQ(test::content_of(*scanned), test::content_of(*storage));
  }
  EXPECT_EQ(checked, 25);
}

INSTANTIATE_TEST_SUITE_P(All, FileStorageMore, ::testing::Values("py2", "py3"),
                         [](const auto& info) { return info.param; });

// A tail that hides whole transactions is no crash's leftover: writing would cut them off.
TEST(FileStorageOpen, LengthDamagedInTheMiddle_RefusesToWriteAndCutsNothing) {
  const test::TempDir dir;
  const auto path = dir / "Data.fs";
  std::filesystem::copy(test_data("more/py3/damaged-length-mismatch-middle.fs"), path);
  const auto before = test::slurp(path);
  const auto [code, sentence] = test::error_of([&] { open_filestorage(path, OpenMode::kWrite); });
  EXPECT_EQ(code, ErrorCode::kCorrupt);
  EXPECT_THAT(sentence, HasSubstr(path + " at 100571: "));
  EXPECT_EQ(test::slurp(path), before);
}

// What ZODB does with a crash's tail when it opens for writing: row by row.
struct TailCase {
  const char* name;
  bool kept;  // in Data.fs.tr0
};

TEST(FileStorageOpen, TailOfACrash_IsCutOffAndKept) {
  for (const auto& [name, kept] :
       {TailCase{"checkpoint-tail", true}, TailCase{"cut-before-last-length", true},
        TailCase{"cut-in-last-data", true}, TailCase{"cut-in-last-header", false},
        TailCase{"cut-in-last-length", true}, TailCase{"garbage-tail", true},
        TailCase{"zero-tail", true}}) {
    SCOPED_TRACE(name);
    const test::TempDir dir;
    const auto path = dir / "Data.fs";
    const auto source = test_data(std::string("more/py3/damaged-") + name + ".fs");
    std::filesystem::copy(source, path);
    const auto whole = test::content_of(*open_filestorage(source, OpenMode::kRead));
    Tid next;
    {
      const auto storage = open_filestorage(path, OpenMode::kWrite);
      EXPECT_EQ(test::content_of(*storage), whole);
      const auto size = std::filesystem::file_size(path);
      const auto original = test::slurp(source);
      EXPECT_EQ(test::slurp(path), original.substr(0, size));
      EXPECT_EQ(std::filesystem::exists(path + ".tr0"), kept);
      if (kept) {
        EXPECT_EQ(test::slurp(path + ".tr0"), original.substr(size));
      }
      next = test::commit(*storage, {{storage->new_oid(), "after the crash"}});
    }
    EXPECT_EQ(open_filestorage(path, OpenMode::kRead)->last_tid(), next);
  }
}

}  // namespace
}  // namespace zbig
