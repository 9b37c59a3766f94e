// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <map>
#include <optional>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bigfile/block_buffer.h"
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

// The rule as docs/formats/zbigfile.md has it, with both contents of each block at hand.
class RuleModel {
 public:
  explicit RuleModel(std::uint64_t blksize) : blksize_(blksize) {}

  // What the next commit takes.
  void write(std::uint64_t offset, const Bytes& bytes) {
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      const std::uint64_t block = (offset + i) / blksize_;
      if (!proposed_.contains(block)) {
        const auto old = blocks_.find(block);
        proposed_[block] = old != blocks_.end() ? old->second.bytes : Bytes(blksize_);
      }
      proposed_[block][(offset + i) % blksize_] = bytes[i];
    }
  }

  void commit(BlockFormat format) {
    std::optional<std::uint64_t> migratable;
    for (auto& [number, now] : proposed_) {
      const auto found = blocks_.find(number);
      const bool exists = found != blocks_.end();
      if (exists && found->second.bytes == now) continue;
      bool zblk1 = format == BlockFormat::kZBlk1;
      if (format == BlockFormat::kAuto) {
        const Bytes old = exists ? without_end(found->second.bytes) : Bytes();
        const Bytes end = without_end(now);
        const std::int64_t last =
            blocks_.empty() ? -1 : static_cast<std::int64_t>(blocks_.rbegin()->first);
        const auto block = static_cast<std::int64_t>(number);
        const bool longer =
            end.size() >= old.size() && std::equal(old.begin(), old.end(), end.begin());
        const bool append_new = block == last + 1 && old.empty();
        const bool appended = (block == last && longer) || append_new;
        if (append_new && migratable && *migratable + 1 == number) {
          blocks_[*migratable].zblk1 = false;
        }
        migratable.reset();
        zblk1 = 2 * count_differences(end, old) < blksize_ && !(appended && end.size() == blksize_);
        if (zblk1 && block == last && exists && found->second.zblk1) migratable = number;
      }
      blocks_[number] = {now, zblk1};
    }
    proposed_.clear();
  }

  std::string format_of(std::uint64_t block) const {
    const auto found = blocks_.find(block);
    return found == blocks_.end() ? "hole" : found->second.zblk1 ? "ZBlk1" : "ZBlk0";
  }

 private:
  struct Block {
    Bytes bytes;
    bool zblk1 = false;
  };
  static Bytes without_end(const Bytes& bytes) {
    return {bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(trimmed(bytes))};
  }

  const std::uint64_t blksize_;
  std::map<std::uint64_t, Block> blocks_;
  std::map<std::uint64_t, Bytes> proposed_;
};

TEST(CommitAuto, RandomHistories_EachBlockHasTheFormatOfTheRule) {
  constexpr std::uint64_t kBlksize = 16384;
  constexpr std::uint64_t kBlocks = 5;
  std::map<std::string, int> seen;
  for (unsigned seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const auto below = [&](std::uint64_t n) { return random() % n; };
    const auto storage = std::make_shared<test::MemoryStorage>();
    test::VolumeLab lab(storage, "/A", kBlksize);
    RuleModel model(kBlksize);
    std::uint64_t end = 0;  // where appends go on
    for (int commit = 0; commit < 30; ++commit) {
      bool written = false;
      for (std::uint64_t i = below(3) + 1; i > 0; --i) {
        Bytes bytes(below(3) == 0 ? below(2 * kBlksize) + 1 : below(5000) + 1);
        if (below(4) != 0) bytes = test::noise(random(), bytes.size());  // else zeros
        if (below(4) == 0) std::fill(bytes.begin() + bytes.size() / 2, bytes.end(), std::byte{});
        std::uint64_t offset = below(kBlocks * kBlksize);
        if (below(2) == 0) offset = end, end += bytes.size();
        if (below(8) == 0) offset = offset / kBlksize * kBlksize, bytes.resize(kBlksize);
        if (offset + bytes.size() > kBlocks * kBlksize) continue;
        if (offset == end && end > kBlocks * kBlksize / 2) end = 0;
        lab.write(offset, bytes);
        model.write(offset, bytes);
        written = true;
      }
      if (!written) continue;
      const BlockFormat format = below(6) != 0   ? BlockFormat::kAuto
                                 : below(2) == 0 ? BlockFormat::kZBlk0
                                                 : BlockFormat::kZBlk1;
      lab.commit(format);
      model.commit(format);
      ASSERT_EQ(lab.differs(), "");
      for (std::uint64_t block = 0; block < kBlocks; ++block) {
        ASSERT_EQ(lab.format_of(block), model.format_of(block)) << commit << ", block " << block;
        ++seen[model.format_of(block)];
      }
    }
  }
  EXPECT_GT(seen["ZBlk0"], 500);
  EXPECT_GT(seen["ZBlk1"], 500);
}

}  // namespace
}  // namespace zbig
