// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/json.h"
#include "tests/support/memory_storage.h"
#include "tests/support/paths.h"
#include "tests/support/volume_lab.h"
#include "zodb/filestorage/filestorage.h"

// The format `auto`: the history that wendelin.core's development branch wrote with it is written
// again, and gives the same formats and the same records, but for two things that zbig does and it
// does not: a block that is replaced is touched, and a block that is equal is not stored.

namespace zbig {
namespace {

using test::Json;
using ::testing::IsEmpty;
using ::testing::IsSubsetOf;

const std::string kFolder = test::test_data("original/master-auto");

std::vector<std::string> minus(std::vector<std::string> from,
                               const std::vector<std::string>& what) {
  std::vector<std::string> rest;
  std::set_difference(from.begin(), from.end(), what.begin(), what.end(), std::back_inserter(rest));
  return rest;
}

TEST(CommitAuto, HistoryOfTheOriginalReplayed_SameFormatsAndRecords) {
  const auto manifest = Json::parse_file(kFolder + "/manifest.json");
  const std::shared_ptr<Storage> original = open_filestorage(kFolder + "/Data.fs", OpenMode::kRead);
  const auto storage = std::make_shared<test::MemoryStorage>();
  std::map<std::string, std::unique_ptr<test::VolumeLab>> labs;
  std::size_t compared = 0;
  for (const Json& transaction : manifest["transactions"].list()) {
    const Tid tid = *Tid::parse_hex(transaction["tid"].text());
    SCOPED_TRACE(transaction["description"].text());
    for (const Json& json : manifest["volumes"].list()) {
      const std::string path = json["path"].text();
      const auto blksize = static_cast<std::uint64_t>(json["blksize"].number());
      for (const Json& state : json["states"].list()) {
        if (state["tid"].text() != tid.hex()) continue;
        auto& lab = labs[path];
        const bool first = !lab;
        if (first) lab = std::make_unique<test::VolumeLab>(storage, path, blksize);
        const auto view = View::open(original, find_volume(*original, path, tid), tid);
        std::size_t replaced = 0;
        for (const auto& [number, block] : state["blocks"].object()) {
          Bytes bytes(blksize);
          view->read(std::stoull(number) * blksize, bytes);
          lab->write_block(std::stoull(number), bytes);
          const Oid old = lab->zblk_of(std::stoull(number));
          if (old != Oid{} && lab->format_of(std::stoull(number)) != block[1].text()) ++replaced;
        }
        if (state["blocks"].object().empty()) continue;
        const auto result = lab->commit(BlockFormat::kAuto);
        ASSERT_TRUE(result.tid);
        EXPECT_EQ(lab->differs(), "");
        for (const auto& [number, block] : state["blocks"].object()) {
          EXPECT_EQ(lab->format_of(std::stoull(number)), block[1].text()) << path << " " << number;
        }
        if (first) continue;  // there the volumes are made in the same transaction
        const auto ours = test::stored_kinds(*storage, *result.tid);
        const auto theirs = test::stored_kinds(*original, tid);
        const auto extra = minus(ours, theirs);
        EXPECT_LE(extra.size(), replaced);
        EXPECT_THAT(extra, IsSubsetOf({"ZBlk0 46", "ZBlk1 84", "ZBlk1 84"}));
        const auto missing = minus(theirs, ours);
        if (transaction["description"].text() == "cleared; the same bytes") {
          EXPECT_EQ(missing.size(), 1u);
        } else {
          EXPECT_THAT(missing, IsEmpty());
        }
        ++compared;
      }
    }
  }
  EXPECT_EQ(compared, 11u);
}

}  // namespace
}  // namespace zbig
