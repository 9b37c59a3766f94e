// SPDX-License-Identifier: BSD-3-Clause

// Records and trees in the databases that the original programs wrote (tests/data): zbig writes
// each record again to the same bytes, and changes trees to the same nodes.

#include <algorithm>
#include <filesystem>
#include <iostream>

#include <gtest/gtest.h>

#include "tests/support/json.h"
#include "tests/support/paths.h"
#include "tests/support/pickle_repr.h"
#include "tests/support/tree_comparison.h"
#include "zodb/btree_editor.h"
#include "zodb/payload.h"
#include "zodb/record.h"

namespace zbig {
namespace {

std::unique_ptr<Storage> open_original(const std::string& name) {
  return open_storage(test::test_data(name), OpenMode::kRead);
}

std::vector<std::string> sound_databases() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(test::test_data("original")))
    if (entry.is_directory())
      names.push_back("original/" + entry.path().filename().string() + "/Data.fs");
  for (const std::string python : {"py2", "py3"}) {
    const std::string folder = test::test_data(std::string("more/") + python);
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (entry.path().extension() == ".fs" &&
          !entry.path().filename().string().starts_with("damaged"))
        names.push_back("more/" + python + "/" + entry.path().filename().string());
  }
  return names;
}

// What the project would write for the object that the record holds; nothing for classes that it
// only reads.
std::optional<Bytes> write_again(const ObjectRecord& record) {
  const Flavour flavour = detect_flavour(record.data());
  if (test::is_btree_node(record)) return encode_btree_node(decode_btree_node(record), flavour);
  if (record.is(KnownClass::kZBlk0) || record.is(KnownClass::kZData) ||
      record.is(KnownClass::kZBlk1) || record.is(KnownClass::kZBigFile)) {
    RecordWriter writer(flavour, record.cls());
    test::rewrite(writer, record.state());
    return writer.finish();
  }
  return std::nullopt;
}

TEST(Originals, EveryRecordOfTheSchema_IsWrittenAgainToTheSameBytes) {
  std::size_t written = 0;
  for (const std::string& name : sound_databases()) {
    const auto storage = open_original(name);
    const auto cursor = storage->transactions(kNoTid, kMaxTid, false);
    std::size_t wrong = 0;
    while (const auto transaction = cursor->next()) {
      for (const auto& stored : transaction->stored) {
        auto loaded = storage->load(stored.oid, transaction->tid);
        if (!loaded) continue;
        const std::uint64_t size = loaded->data.size();
        const bool plain = !is_compressed(loaded->data);
        const Bytes head(
            loaded->data.begin(),
            loaded->data.begin() + static_cast<std::ptrdiff_t>(std::min(size, kPayloadHeadSize)));
        const ObjectRecord record = ObjectRecord::parse(std::move(loaded->data));
        const auto again = write_again(record);
        if (!again) continue;
        ++written;
        if (as_text(*again) != as_text(record.data())) {
          ++wrong;
          std::cout << name << ": " << describe_object(stored.oid, transaction->tid) << ", "
                    << record.cls().str() << ", is written otherwise\n";
        }
        if (record.is(KnownClass::kZBlk0) || record.is(KnownClass::kZData)) {
          const auto found = payload_head(head, size);
          EXPECT_EQ(found.has_value(), plain) << name;
          const auto payload = find_payload(record.data());
          ASSERT_TRUE(payload);
          EXPECT_TRUE(!found ||
                      (found->offset == payload->offset && found->length == payload->length));
        }
      }
    }
    // Python 2 gives memo numbers to references in what it has resolved a conflict for, since the
    // resolver holds them. zbig does not resolve.
    EXPECT_EQ(wrong, name == "original/py2-conflict/Data.fs" ? 4u : 0u) << name;
  }
  EXPECT_GT(written, 80'000u);
}

// --- trees

std::map<std::int64_t, Ref> content_of(const NodeSource& source, Oid root) {
  std::map<std::int64_t, Ref> content;
  BTree(source, root, KnownClass::kLOBTree)
      .for_each(kMinKey, kMaxKey, [&](std::int64_t key, const Ref& ref) {
        content.emplace(key, ref);
        return true;
      });
  return content;
}

struct History {
  const char* database;
  const char* volume;
  // The first state to start from: the one before was made in an order that is not known.
  int skip;
};

Oid blktab_of(const std::string& database, std::string_view volume) {
  const auto manifest =
      test::Json::parse_file(test::test_data("original/" + database + "/manifest.json"));
  for (const auto& candidate : manifest["volumes"].list())
    if (candidate["path"].text() == volume) return *Oid::parse_hex(candidate["blktab"].text());
  throw std::runtime_error("no such volume in " + database);
}

class TreeHistory : public ::testing::TestWithParam<History> {};

TEST_P(TreeHistory, EditorMakesTheNodesOfTheOriginal) {
  const History& history = GetParam();
  const auto storage = open_original("original/" + std::string(history.database) + "/Data.fs");
  const Oid root = blktab_of(history.database, history.volume);
  std::vector<Tid> tids;
  const auto cursor = storage->transactions(kNoTid, kMaxTid, false);
  while (const auto transaction = cursor->next())
    if (storage->load(root, transaction->tid)) tids.push_back(transaction->tid);

  int compared = 0;
  for (std::size_t i = 1; i < tids.size(); ++i) {
    const StorageNodeSource before(*storage, tids[i - 1]), after(*storage, tids[i]);
    const auto old_content = content_of(before, root), new_content = content_of(after, root);
    if (old_content == new_content || compared++ < history.skip) continue;
    SCOPED_TRACE(tids[i].hex());

    std::uint64_t next_oid = 0x7000000000000000;
    BTreeEditor editor(before, root, KnownClass::kLOBTree, [&] { return Oid{next_oid++}; });
    if (new_content.empty()) {
      editor.clear();
    } else {
      for (const auto& [key, ref] : old_content)
        if (!new_content.contains(key)) editor.erase(key);
    }
    for (const auto& [key, ref] : new_content) editor.set(key, ref);

    test::TreeComparison comparison(*storage, tids[i - 1], tids[i], editor);
    comparison.compare(root);
    EXPECT_EQ(comparison.stored(), comparison.stored_by_original());
  }
  EXPECT_GT(compared, history.skip);
}

INSTANTIATE_TEST_SUITE_P(
    Databases, TreeHistory,
    ::testing::Values(History{"py3-btree", "/ascending", 0}, History{"py2-btree", "/ascending", 0},
                      History{"py3-btree", "/random", 1}, History{"py2-btree", "/random", 1},
                      History{"py3-deep", "/a", 0}, History{"py3-mixed", "/a", 0},
                      History{"py2-mixed", "/a", 0}),
    [](const auto& info) {
      std::string name = std::string(info.param.database) + info.param.volume;
      std::replace_if(
          name.begin(), name.end(), [](char c) { return c == '-' || c == '/'; }, '_');
      return name;
    });

}  // namespace
}  // namespace zbig
