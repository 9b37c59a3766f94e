// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bigfile/changes.h"
#include "bigfile/view.h"
#include "bigfile/volume.h"
#include "tests/support/json.h"
#include "tests/support/paths.h"
#include "tests/support/sha256.h"
#include "zodb/error.h"
#include "zodb/filestorage/filestorage.h"

// View, catalogue and changes against databases that wendelin.core wrote: every block of every
// volume at every transaction has the hash that the original read, and what is said to have changed
// between two states covers what did.

namespace zbig {
namespace {

using test::Json;
using test::test_data;

constexpr std::uint64_t kMaxDump = 64u << 20;

std::vector<std::string> original_databases() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(test_data("original"))) {
    if (std::filesystem::exists(entry.path() / "Data.fs")) {
      names.push_back(entry.path().filename().string());
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string test_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !std::isalnum(c); }, '_');
  return name;
}

Tid tid_of(const Json& text) { return *Tid::parse_hex(text.text()); }
Oid oid_of(const Json& text) { return *Oid::parse_hex(text.text()); }

Bytes read_all(const View& view, std::uint64_t offset, std::uint64_t size) {
  Bytes bytes(size, std::byte{0xaa});
  view.read(offset, bytes);
  return bytes;
}

struct BlockState {
  std::string hash;
  bool operator==(const BlockState&) const = default;
};
using Blocks = std::map<std::uint64_t, BlockState>;

// The states of a volume, with all of its blocks in each.
struct State {
  Tid tid;
  bool exists = true;
  Blocks blocks;
  Json json;
};
std::vector<State> states_of(const Json& volume) {
  std::vector<State> states;
  Blocks blocks;
  for (const Json& json : volume["states"].list()) {
    State state;
    state.tid = tid_of(json["tid"]);
    state.json = json;
    state.exists = json["exists"].is_null();
    if (!state.exists) {
      blocks.clear();
    } else {
      for (const auto& [number, block] : json["blocks"].object()) {
        const std::uint64_t key = std::stoull(number);
        if (block.is_null()) {
          blocks.erase(key);
        } else {
          blocks[key].hash = block[0].text();
        }
      }
      state.blocks = blocks;
    }
    states.push_back(state);
  }
  return states;
}

class OriginalData : public ::testing::TestWithParam<std::string> {
 protected:
  OriginalData()
      : folder_(test_data("original/" + GetParam())),
        manifest_(Json::parse_file(folder_ + "/manifest.json")),
        storage_(open_filestorage(folder_ + "/Data.fs", OpenMode::kRead)) {}

  const std::string folder_;
  const Json manifest_;
  const std::shared_ptr<Storage> storage_;
};

TEST_P(OriginalData, View_EveryBlockAtEveryTid_HasTheHash) {
  std::size_t compared = 0;
  for (const Json& json : manifest_["volumes"].list()) {
    if (json["states"].list().empty()) continue;  // packed away
    const std::string path = json["path"].text();
    const std::uint64_t blksize = static_cast<std::uint64_t>(json["blksize"].number());
    std::shared_ptr<const View> followed;  // moves from state to state
    Blocks known;
    for (const State& state : states_of(json)) {
      SCOPED_TRACE(path + " at " + state.tid.hex());
      if (!state.exists) {
        EXPECT_THROW(find_volume(*storage_, path, state.tid), NotFound);
        followed.reset();
        continue;
      }
      const Volume volume = find_volume(*storage_, path, state.tid);
      EXPECT_EQ(volume.oid, oid_of(json["oid"]));
      EXPECT_EQ(volume.zfile, oid_of(json["zfile"]));
      EXPECT_EQ(volume.blktab, oid_of(json["blktab"]));
      EXPECT_EQ(volume.blksize, blksize);
      const auto view = View::open(storage_, volume, state.tid);
      EXPECT_EQ(view->size(), static_cast<std::uint64_t>(state.json["size"].number()));
      if (!state.json["shape"].is_null()) {
        EXPECT_TRUE(volume.array.has_value());
        if (!volume.array) continue;
        std::vector<std::uint64_t> shape;
        for (const Json& n : state.json["shape"].list()) {
          shape.push_back(static_cast<std::uint64_t>(n.number()));
        }
        EXPECT_EQ(volume.array->shape, shape);
        EXPECT_EQ(std::string(1, volume.array->order), state.json["order"].text());
        // A structured type is a list of fields there, and raw bytes here.
        if (state.json["dtype"].is_text()) {
          EXPECT_EQ(volume.array->dtype, state.json["dtype"].text());
        }
      }

      // Once with the caches of the states before, once without.
      if (followed) {
        followed = followed->advance(state.tid, storage_->changed_oids(followed->at(), state.tid));
        EXPECT_EQ(followed->size(), view->size());
      } else {
        followed = view;
      }
      for (const auto& [block, expected] : state.blocks) {
        const bool changed = !known.contains(block) || known[block] != expected;
        if (!changed && compared % 7 != 0) {
          ++compared;
          continue;
        }
        ++compared;
        const std::string wanted = expected.hash;
        EXPECT_EQ(test::sha256_hex(read_all(*followed, block * blksize, blksize)).substr(0, 16),
                  wanted)
            << "block " << block;
        EXPECT_EQ(test::sha256_hex(read_all(*view, block * blksize, blksize)).substr(0, 16), wanted)
            << "block " << block << " in a new view";
      }
      known = state.blocks;
      if (view->size() <= kMaxDump && !state.json["sha256"].is_null()) {
        EXPECT_EQ(test::sha256_hex(read_all(*view, 0, view->size())), state.json["sha256"].text());
      }
    }
  }
}

TEST_P(OriginalData, View_SmallReads_AgreeWithTheWholeBlock) {
  for (const Json& json : manifest_["volumes"].list()) {
    const auto states = states_of(json);
    if (states.empty() || !states.back().exists || states.back().blocks.empty()) continue;
    const State& state = states.back();
    const Volume volume = find_volume(*storage_, json["path"].text(), state.tid);
    const auto view = View::open(storage_, volume, state.tid);
    std::size_t blocks = 0;
    for (const auto& [block, expected] : state.blocks) {
      if (++blocks > 8) break;
      const std::uint64_t begin = block * volume.blksize;
      const Bytes whole = read_all(*view, begin, volume.blksize);
      std::uint64_t seed = block + 1;
      for (int i = 0; i < 60; ++i) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        const std::uint64_t offset = (seed >> 20) % volume.blksize;
        const std::uint64_t length =
            std::min<std::uint64_t>(1 + (seed >> 40) % 9000, volume.blksize - offset);
        const Bytes part = read_all(*view, begin + offset, length);
        ASSERT_TRUE(std::equal(part.begin(), part.end(),
                               whole.begin() + static_cast<std::ptrdiff_t>(offset)))
            << json["path"].text() << " block " << block << " at " << offset << " + " << length;
      }
    }
  }
}

TEST_P(OriginalData, ListVolumes_AtTheHead_FindsThoseOfTheManifest) {
  std::vector<std::string> errors;
  std::vector<std::string> found;
  for (const Volume& volume : list_volumes(*storage_, storage_->last_tid(),
                                           [&](const std::string& e) { errors.push_back(e); })) {
    found.push_back(volume.path);
  }
  EXPECT_THAT(errors, ::testing::IsEmpty());
  for (const Json& json : manifest_["volumes"].list()) {
    const auto states = states_of(json);
    if (states.empty() || !states.back().exists) continue;
    if (json["path"].text().starts_with("oid:")) continue;
    EXPECT_THAT(found, ::testing::Contains(json["path"].text()));
  }
}

// Blocks that differ between two states are all in changed_blocks and changed_extents, and
// differing_extents are within changed_extents.
TEST_P(OriginalData, Changes_BetweenAnyTwoStates_CoverWhatDiffers) {
  for (const Json& json : manifest_["volumes"].list()) {
    const std::string path = json["path"].text();
    const auto states = states_of(json);
    std::size_t pairs = 0;
    for (std::size_t i = 0; i < states.size(); ++i) {
      for (std::size_t j = i + 1; j < states.size(); j += 1 + (j - i) / 2) {
        if (!states[i].exists && !states[j].exists) continue;
        if (++pairs > 40) break;
        const Tid from = states[i].tid;
        const Tid to = states[j].tid;
        SCOPED_TRACE(path + " from " + from.hex() + " to " + to.hex());
        const Volume volume = find_volume(*storage_, path, states[j].exists ? to : from);
        const auto changed = storage_->changed_oids(from, to);
        const Changes changes = changed_extents(*storage_, volume, from, to, changed);
        EXPECT_EQ(changes.whole_file, states[i].exists != states[j].exists);
        if (states[i].exists) {
          EXPECT_EQ(changes.old_size, static_cast<std::uint64_t>(states[i].json["size"].number()));
        }
        if (states[j].exists) {
          EXPECT_EQ(changes.new_size, static_cast<std::uint64_t>(states[j].json["size"].number()));
        }
        if (changes.whole_file) continue;
        const std::uint64_t shown = std::max(changes.old_size, changes.new_size);

        std::map<std::uint64_t, Tid> blocks;
        for (const BlockChange& change : changed_blocks(*storage_, volume, from, to)) {
          blocks[change.block] = change.tid;
          EXPECT_GT(change.tid, from);
          EXPECT_LE(change.tid, to);
        }
        std::set<std::uint64_t> all;
        for (const auto& [block, state] : states[i].blocks) all.insert(block);
        for (const auto& [block, state] : states[j].blocks) all.insert(block);
        for (const std::uint64_t block : all) {
          const auto a = states[i].blocks.find(block);
          const auto b = states[j].blocks.find(block);
          const bool there = a != states[i].blocks.end() && b != states[j].blocks.end();
          if (there && a->second == b->second) continue;
          EXPECT_TRUE(blocks.contains(block)) << block;
          if (there && block * volume.blksize + volume.blksize <= shown) {
            EXPECT_FALSE(clipped(changes.extents, block * volume.blksize, volume.blksize).empty());
          }
        }

        // Byte by byte.
        if (shown > kMaxDump / 8 || volume.blksize * all.size() > kMaxDump / 8) continue;
        const auto before = View::open(storage_, volume, from);
        const auto after = View::open(storage_, volume, to);
        Bytes a = read_all(*before, 0, shown);
        Bytes b = read_all(*after, 0, shown);
        std::fill(a.begin() + static_cast<std::ptrdiff_t>(changes.old_size), a.end(), std::byte{});
        std::fill(b.begin() + static_cast<std::ptrdiff_t>(changes.new_size), b.end(), std::byte{});
        const ExtentList differing = differing_extents(*storage_, volume, from, to);
        Bytes patched = a;
        for (const Extent& extent : differing) {
          ASSERT_NE(a[extent.offset], b[extent.offset]);
          ASSERT_NE(a[extent.end() - 1], b[extent.end() - 1]);
          std::copy_n(b.begin() + static_cast<std::ptrdiff_t>(extent.offset), extent.length,
                      patched.begin() + static_cast<std::ptrdiff_t>(extent.offset));
        }
        EXPECT_TRUE(patched == b) << "differing_extents misses a byte";
        patched = a;
        for (const Extent& extent : changes.extents) {
          std::copy_n(b.begin() + static_cast<std::ptrdiff_t>(extent.offset), extent.length,
                      patched.begin() + static_cast<std::ptrdiff_t>(extent.offset));
        }
        // What an array does not show changes with its size alone.
        if (changes.old_size == changes.new_size) {
          EXPECT_TRUE(patched == b) << "changed_extents misses a byte";
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Databases, OriginalData, ::testing::ValuesIn(original_databases()),
                         test_name);

}  // namespace
}  // namespace zbig
