// SPDX-License-Identifier: BSD-3-Clause
#include <cstdlib>
#include <map>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/filestorage_lab.h"
#include "tests/support/python.h"
#include "tests/support/temp_dir.h"
#include "zodb/error.h"
#include "zodb/filestorage/filestorage.h"

// A commit that is cut anywhere leaves a file that opens at the previous transaction or at the new
// one, for us and for ZODB.
//
// What can be on the disk: a killed process leaves the file after any of its writes, or in the
// middle of one. A loss of power leaves, of the writes since the last sync, any pages of 4 KiB.

namespace zbig {
namespace {

using test::TempDir;

struct Commit {
  std::string before;               // the file before the commit
  std::vector<std::string> stages;  // the file after each write of it
  std::string content_before;
  std::string content_after;

  const std::string& voted() const { return stages[stages.size() - 2]; }
  const std::string& after() const { return stages.back(); }
};

// Runs a commit of records of these sizes, and keeps the file after each write.
Commit watch_commit(const std::vector<std::size_t>& sizes) {
  const TempDir dir(TempDir::Medium::kMemory);
  const auto path = dir / "Data.fs";
  Commit out;
  std::mt19937 random(5);
  const auto storage = open_filestorage(path, OpenMode::kCreate);
  test::commit(*storage, {{Oid{0}, "root"}, {Oid{1}, "one"}}, {"jo", "the one before", {}});
  out.before = test::slurp(path);
  out.content_before = test::content_of(*storage);

  const auto watch = [&] {
    auto now = test::slurp(path);
    if ((out.stages.empty() ? out.before : out.stages.back()) != now) {
      out.stages.push_back(std::move(now));
    }
  };
  const auto transaction = storage->begin({"ann", "cut", {}});
  const auto base = storage->last_tid();
  for (const auto size : sizes) {
    std::string data(size, '\0');
    for (auto& c : data) c = static_cast<char>(random());
    const bool change = &size == &sizes.front();
    transaction->store(change ? Oid{1} : storage->new_oid(), change ? base : kNoTid,
                       as_bytes(data));
    watch();
  }
  transaction->vote();
  watch();
  transaction->finish();
  watch();
  out.content_after = test::content_of(*storage);
  return out;
}

// Opens `file` for reading and then for writing, commits, and reads all again.
// Whether the cut commit is there.
bool opens_at_one_of_both(const Commit& commit, const std::string& file) {
  const TempDir dir(TempDir::Medium::kMemory);
  const auto path = dir / "Data.fs";
  test::spew(path, file);
  const auto content = test::content_of(*open_filestorage(path, OpenMode::kRead));
  const bool there = content == commit.content_after;
  EXPECT_TRUE(there || content == commit.content_before) << content.size();
  const auto writer = open_filestorage(path, OpenMode::kWrite);
  EXPECT_EQ(test::content_of(*writer), content);
  EXPECT_EQ(test::slurp(path), there ? commit.after() : commit.before);
  const auto tid = test::commit(*writer, {{Oid{2}, "next"}});
  EXPECT_EQ(open_filestorage(path, OpenMode::kRead)->last_tid(), tid);
  return there;
}

// The files that a killed process can leave: prefixes of what it appended, and its overwrites of
// the header, whole and in part. `choose` picks how many of the bytes of an append to try.
template <typename Fn>
void each_cut(const Commit& commit, std::size_t step, Fn fn) {
  std::mt19937 random(9);
  auto old = commit.before;
  for (const auto& stage : commit.stages) {
    const auto common = old.size();
    for (std::size_t size = common; size < stage.size(); size += 1 + random() % step) {
      fn(old + stage.substr(common, size - common));
    }
    // What was overwritten: byte by byte, after what was appended.
    auto torn = old + stage.substr(common);
    for (std::size_t i = 0; i < common; ++i) {
      if (torn[i] == stage[i]) continue;
      fn(torn);
      torn[i] = stage[i];
    }
    fn(stage);
    old = stage;
  }
}

TEST(FileStorageCrash, SmallCommitCutAtEveryByte_OpensBeforeOrAfter) {
  const auto commit = watch_commit({20, 5, 300});
  EXPECT_EQ(commit.stages.size(), 2u);  // vote and finish
  int cuts = 0;
  int there = 0;
  each_cut(commit, 1, [&](const std::string& file) {
    ++cuts;
    there += opens_at_one_of_both(commit, file) ? 1 : 0;
  });
  EXPECT_GT(cuts, 480);
  EXPECT_EQ(there, 1);
}

TEST(FileStorageCrash, LargeCommitCutAtRandomBytes_OpensBeforeOrAfter) {
  const auto commit = watch_commit({2 << 20, 100, 70000, 1 << 20, 4096});
  EXPECT_GE(commit.stages.size(), 5u);  // payloads, the rest, the header's length, finish
  int there = 0;
  each_cut(commit, 100000,
           [&](const std::string& file) { there += opens_at_one_of_both(commit, file) ? 1 : 0; });
  EXPECT_EQ(there, 1);
}

TEST(FileStorageCrash, PagesLostBeforeTheVotesSync_OpensBefore) {
  const auto commit = watch_commit({9000, 5000, 30000});
  std::mt19937 random(3);
  constexpr std::size_t kPage = 4096;
  const auto& voted = commit.voted();
  for (int round = 0; round < 200; ++round) {
    auto file = voted;
    for (std::size_t page = commit.before.size() / kPage; page * kPage < file.size(); ++page) {
      if (random() % 3 != 0) continue;
      for (auto i = std::max(page * kPage, commit.before.size());
           i < std::min((page + 1) * kPage, file.size()); ++i) {
        file[i] = '\0';
      }
    }
    if (random() % 3 == 0) {
      file.resize(commit.before.size() + random() % (file.size() - commit.before.size()));
    }
    EXPECT_FALSE(opens_at_one_of_both(commit, file));
  }
}

TEST(FileStorageCrash, CutCommit_OpensInPythonAsInZbig) {
  const auto python = test::Python::find("py3");
  if (!python) GTEST_SKIP() << test::Python::kMissing;
  const TempDir dir(TempDir::Medium::kMemory);
  int files = 0;
  std::map<std::string, std::string> wanted;  // file -> its content, as we read it
  const auto keep = [&](const std::string& file) {
    const auto path = dir / ("cut" + std::to_string(files++) + ".fs");
    test::spew(path, file);
    wanted[path] = test::digest_of(*open_filestorage(path, OpenMode::kRead));
  };
  each_cut(watch_commit({20, 5, 300}), 7, keep);
  each_cut(watch_commit({2 << 20, 100, 70000}), 300000, keep);

  std::string list;
  for (const auto& [path, content] : wanted) list += path + "\n";
  test::spew(dir / "list", list);
  const auto read = python->run("filestorage.py", {"digests", "read", dir / "list"});
  const auto recovered = python->run("filestorage.py", {"digests", "write", dir / "list"});
  std::string expected;
  for (const auto& [path, content] : wanted) expected += path + " " + content + "\n";
  EXPECT_EQ(read, expected);
  EXPECT_EQ(recovered, expected);
  for (const auto& [path, content] : wanted) {  // and as Python's recovery left it
    EXPECT_EQ(test::digest_of(*open_filestorage(path, OpenMode::kRead)), content);
  }
}

}  // namespace
}  // namespace zbig
