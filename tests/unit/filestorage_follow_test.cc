// SPDX-License-Identifier: BSD-3-Clause
#include <chrono>
#include <future>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/filestorage_lab.h"
#include "tests/support/paths.h"
#include "tests/support/python.h"
#include "tests/support/temp_dir.h"
#include "zodb/error.h"
#include "zodb/filestorage/filestorage.h"

// A FileStorage open for reading follows what another process does to the file: commits, aborted
// votes, packs; and refuses to go on where committed data went.

namespace zbig {
namespace {

using std::chrono::steady_clock;
using test::error_of;
using test::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Heard {
  Tid tid;
  std::vector<Oid> oids;
  bool operator==(const Heard&) const = default;
};

class FileStorageFollow : public ::testing::Test {
 protected:
  FileStorageFollow() {
    writer = open_filestorage(path, OpenMode::kCreate);
    first = test::commit(*writer, {{Oid{0}, "root"}, {Oid{1}, "one"}});
    follower = open_filestorage(path, OpenMode::kRead);
    listen();
  }

  void listen() {
    subscription = follower->subscribe([this](Tid tid, std::span<const Oid> oids) {
      EXPECT_LT(follower->last_tid(), tid);
      heard.push_back({tid, {oids.begin(), oids.end()}});
    });
  }

  TempDir dir;
  const std::string path = dir / "Data.fs";
  std::unique_ptr<Storage> writer;
  std::unique_ptr<Storage> follower;
  std::vector<Heard> heard;
  std::unique_ptr<Subscription> subscription;
  Tid first;
};

TEST_F(FileStorageFollow, Commits_AreToldInOrder) {
  const auto second = test::commit(*writer, {{Oid{1}, "two"}, {Oid{5}, "five"}});
  const auto third = test::commit(*writer, {{Oid{0}, "root 2"}});
  EXPECT_EQ(follower->last_tid(), first);
  EXPECT_FALSE(follower->load(Oid{5}, kMaxTid));
  EXPECT_EQ(follower->sync(), third);
  EXPECT_THAT(heard, ElementsAre(Heard{second, {Oid{1}, Oid{5}}}, Heard{third, {Oid{0}}}));
  EXPECT_EQ(follower->last_tid(), third);
  EXPECT_EQ(test::text_of(follower->load(Oid{1}, first)), "one");
  EXPECT_EQ(test::text_of(follower->load(Oid{1}, third)), "two");
  EXPECT_EQ(follower->sync(), third);
  EXPECT_EQ(heard.size(), 2u);
}

TEST_F(FileStorageFollow, OwnCommits_AreToldToo) {
  std::vector<Heard> own;
  const auto listening = writer->subscribe([&](Tid tid, std::span<const Oid> oids) {
    EXPECT_LT(writer->last_tid(), tid);
    own.push_back({tid, {oids.begin(), oids.end()}});
  });
  const auto tid = test::commit(*writer, {{Oid{1}, "two"}});
  EXPECT_THAT(own, ElementsAre(Heard{tid, {Oid{1}}}));
}

TEST_F(FileStorageFollow, EndedSubscription_HearsNothing) {
  subscription.reset();
  test::commit(*writer, {{Oid{1}, "two"}});
  follower->sync();
  EXPECT_TRUE(heard.empty());
}

TEST_F(FileStorageFollow, TransactionInProgress_IsNotSeenAtAnyStage) {
  const std::string large(3 << 20, 'x');
  for (int round = 0; round < 3; ++round) {
    const auto transaction = writer->begin({});
    EXPECT_EQ(follower->sync(), first);
    transaction->store(Oid{2}, kNoTid, as_bytes(large));
    EXPECT_EQ(follower->sync(), first);
    transaction->vote();
    EXPECT_EQ(follower->sync(), first);
    transaction->abort();
    EXPECT_EQ(follower->sync(), first);
  }
  EXPECT_FALSE(follower->load(Oid{2}, kMaxTid));
  // Another transaction over the same bytes.
  const auto tid = test::commit(*writer, {{Oid{3}, "three"}});
  EXPECT_EQ(follower->sync(), tid);
  EXPECT_THAT(heard, ElementsAre(Heard{tid, {Oid{3}}}));
}

TEST_F(FileStorageFollow, ManyNewObjects_AreFoundAfterTheIndexWasMerged) {
  constexpr std::uint64_t kObjects = 200000;
  const auto transaction = writer->begin({});
  for (std::uint64_t i = 10; i < kObjects; ++i) transaction->store(Oid{i}, kNoTid, as_bytes("x"));
  transaction->vote();
  const auto tid = transaction->finish();
  EXPECT_EQ(follower->sync(), tid);
  for (const Storage* storage : {writer.get(), follower.get()}) {
    EXPECT_EQ(storage->locate(Oid{10}, kMaxTid)->serial, tid);
    EXPECT_EQ(storage->locate(Oid{kObjects - 1}, kMaxTid)->serial, tid);
    EXPECT_FALSE(storage->locate(Oid{kObjects}, kMaxTid));
  }
}

// --- committed data that went

TEST_F(FileStorageFollow, FileCutShort_IsCorruptUntilAllIsThereAgain) {
  const auto backup = test::slurp(path);
  const auto second = test::commit(*writer, {{Oid{1}, "two"}});
  EXPECT_EQ(follower->sync(), second);
  const auto whole = test::slurp(path);
  test::spew(path, backup);
  for (int i = 0; i < 2; ++i) {
    const auto [code, sentence] = error_of([&] { follower->sync(); });
    EXPECT_EQ(code, ErrorCode::kCorrupt);
    EXPECT_THAT(sentence, HasSubstr("committed transactions were cut off"));
    EXPECT_THROW(follower->load(Oid{1}, first), Corrupt);
    EXPECT_THROW(follower->transactions(kNoTid, kMaxTid, false), Corrupt);
  }
  EXPECT_EQ(open_filestorage(path, OpenMode::kRead)->last_tid(), first);

  test::spew(path, whole);
  EXPECT_EQ(follower->sync(), second);
  EXPECT_EQ(test::text_of(follower->load(Oid{1}, second)), "two");
}

TEST_F(FileStorageFollow, FileOverwrittenByOneOfTheSameSize_IsCorrupt) {
  const auto backup = test::slurp(path);
  writer.reset();
  {
    const auto other = open_filestorage(dir / "other.fs", OpenMode::kCreate);
    test::commit(*other, {{Oid{0}, "ROOT"}, {Oid{1}, "ONE"}});
  }
  const auto content = test::slurp(dir / "other.fs");
  ASSERT_EQ(content.size(), backup.size());
  test::spew(path, content);
  const auto [code, sentence] = error_of([&] { follower->sync(); });
  EXPECT_EQ(code, ErrorCode::kCorrupt);
  EXPECT_THAT(sentence, HasSubstr("the file was overwritten"));
}

TEST_F(FileStorageFollow, DamagedCommit_IsCorruptAndNotSeen) {
  const auto whole = test::slurp(path);
  test::commit(*writer, {{Oid{1}, "two"}});
  const auto position = whole.size() + 23 + 16;  // `previous` of the record
  auto content = test::slurp(path);
  content[position + 7] = static_cast<char>(content[position + 7] ^ 1);
  test::spew(path, content);
  for (int i = 0; i < 2; ++i) {
    const auto [code, sentence] = error_of([&] { follower->sync(); });
    EXPECT_EQ(code, ErrorCode::kCorrupt);
    EXPECT_THAT(sentence, HasSubstr(path + " at " + std::to_string(whole.size() + 23)));
    EXPECT_EQ(follower->last_tid(), first);
    EXPECT_EQ(test::text_of(follower->load(Oid{1}, first)), "one");
  }
  EXPECT_TRUE(heard.empty());
}

// --- the file replaced

TEST_F(FileStorageFollow, FileReplacedByACopyThatGoesOn_IsFollowed) {
  const auto ref = *follower->locate(Oid{1}, first);
  const auto second = test::commit(*writer, {{Oid{2}, "two"}});
  writer.reset();
  std::filesystem::copy_file(path, path + ".new");
  writer = open_filestorage(path + ".new", OpenMode::kWrite);
  const auto third = test::commit(*writer, {{Oid{1}, "three"}});
  std::filesystem::rename(path + ".new", path);

  EXPECT_EQ(follower->sync(), third);
  EXPECT_THAT(heard, ElementsAre(Heard{second, {Oid{2}}}, Heard{third, {Oid{1}}}));
  Bytes data(ref.size);
  follower->read(ref, 0, data);  // of the file that is gone
  EXPECT_EQ(as_text(data), "one");
  const auto fourth = test::commit(*writer, {{Oid{2}, "four"}});
  EXPECT_EQ(follower->sync(), fourth);
  EXPECT_EQ(heard.size(), 3u);
}

TEST_F(FileStorageFollow, FileReplacedByABackup_IsCorrupt) {
  std::filesystem::copy_file(path, path + ".backup");
  const auto second = test::commit(*writer, {{Oid{1}, "two"}});
  EXPECT_EQ(follower->sync(), second);
  const auto whole = test::slurp(path);
  std::filesystem::rename(path + ".backup", path);
  const auto [code, sentence] = error_of([&] { follower->sync(); });
  EXPECT_EQ(code, ErrorCode::kCorrupt);
  EXPECT_THAT(sentence, HasSubstr("transaction " + second.hex() + " is not there as it was"));
  EXPECT_THROW(follower->load(Oid{1}, first), Corrupt);

  test::spew(path + ".whole", whole);
  std::filesystem::rename(path + ".whole", path);
  EXPECT_EQ(follower->sync(), second);
  EXPECT_EQ(test::text_of(follower->load(Oid{1}, second)), "two");
}

TEST_F(FileStorageFollow, FileReplacedByABackupThatWentOn_IsCorrupt) {
  std::filesystem::copy_file(path, path + ".backup");
  const auto second = test::commit(*writer, {{Oid{1}, "two"}});
  EXPECT_EQ(follower->sync(), second);
  {
    const auto restored = open_filestorage(path + ".backup", OpenMode::kWrite);
    test::commit(*restored, {{Oid{1}, "another two"}});
  }
  std::filesystem::rename(path + ".backup", path);
  EXPECT_THROW(follower->sync(), Corrupt);
}

// Nothing in it contradicts what was there, for there is nothing of that time in it.
TEST_F(FileStorageFollow, FileReplacedByANewerDatabase_IsCorrupt) {
  writer.reset();
  {
    const auto other = open_filestorage(dir / "other.fs", OpenMode::kCreate);
    test::commit(*other, {{Oid{0}, "another root"}, {Oid{1}, "another one"}});
    ASSERT_GT(other->last_tid(), first);
  }
  std::filesystem::rename(dir / "other.fs", path);
  const auto [code, sentence] = error_of([&] { follower->sync(); });
  EXPECT_EQ(code, ErrorCode::kCorrupt);
  EXPECT_THAT(sentence, HasSubstr("replaced by a file that does not continue it"));
  EXPECT_TRUE(heard.empty());
}

// It began before, and went on after, and shares no transaction with what was there.
TEST_F(FileStorageFollow, FileReplacedByAnOlderDatabaseThatWentOn_IsCorrupt) {
  const auto other = open_filestorage(dir / "other.fs", OpenMode::kCreate);
  test::commit(*other, {{Oid{5}, "of another"}});
  test::commit(*writer, {{Oid{2}, "two"}});
  follower->sync();
  test::commit(*other, {{Oid{0}, "another root"}, {Oid{1}, "one"}, {Oid{2}, "two"}});
  std::filesystem::rename(dir / "other.fs", path);
  EXPECT_THROW(follower->sync(), Corrupt);
}

TEST_F(FileStorageFollow, FileGone_IsUnavailableUntilItIsBack) {
  std::filesystem::rename(path, path + ".old");  // as a pack does for a moment
  EXPECT_EQ(follower->sync(), first);
  std::this_thread::sleep_for(std::chrono::milliseconds(1200));
  EXPECT_THROW(follower->sync(), Unavailable);
  EXPECT_EQ(test::text_of(follower->load(Oid{1}, first)), "one");
  std::filesystem::rename(path + ".old", path);
  const auto second = test::commit(*writer, {{Oid{1}, "two"}});
  EXPECT_EQ(follower->sync(), second);
}

// --- other processes

TEST_F(FileStorageFollow, WriterInAnotherProcess_EveryTransactionIsSeenWhole) {
  constexpr int kCommits = 400;
  writer.reset();
  const auto child = ::fork();
  if (child == 0) {
    const auto storage = open_filestorage(path, OpenMode::kWrite);
    for (int i = 1; i <= kCommits; ++i) {
      const auto text =
          std::to_string(i) + std::string(static_cast<std::size_t>(i * 37 % 90000), 'x');
      {
        const auto aborted = storage->begin({});
        aborted->store(storage->new_oid(), kNoTid, as_bytes(text));
        aborted->store(storage->new_oid(), kNoTid, as_bytes(text));
        if (i % 2 == 0) aborted->vote();
      }
      test::commit(*storage, {{Oid{1}, text}, {Oid{2}, text}});
    }
    ::_exit(0);
  }
  const auto deadline = steady_clock::now() + std::chrono::seconds(60);
  while (heard.size() < kCommits && steady_clock::now() < deadline) {
    const auto at = follower->sync();
    if (at == first) continue;
    ASSERT_EQ(test::text_of(follower->load(Oid{1}, at)), test::text_of(follower->load(Oid{2}, at)));
    ASSERT_EQ(heard.back().tid, at);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_EQ(status, 0);
  ASSERT_EQ(heard.size(), static_cast<std::size_t>(kCommits));
  for (std::size_t i = 0; i < heard.size(); ++i) {
    ASSERT_EQ(heard[i].oids, (std::vector{Oid{1}, Oid{2}}));
    const auto number = std::to_string(i + 1);
    ASSERT_EQ(test::text_of(follower->load(Oid{1}, heard[i].tid)).substr(0, number.size()), number);
  }
}

class FileStorageBesidePython : public FileStorageFollow {
 protected:
  void SetUp() override {
    python = test::Python::find("py3");
    if (!python) GTEST_SKIP() << test::Python::kMissing;
    writer.reset();
  }
  std::string python_digest() {
    auto digest = python->run("filestorage.py", {"digest", path});
    digest.pop_back();
    return digest;
  }
  std::optional<test::Python> python;
};

TEST_F(FileStorageBesidePython, CommitsWithAbortedVotes_AreFollowed) {
  auto commits = std::async(std::launch::async, [&] {
    return python->run("filestorage.py", {"commit", path, "100"});
  });
  while (commits.wait_for(std::chrono::microseconds(100)) != std::future_status::ready) {
    const auto at = follower->sync();
    if (!heard.empty()) {
      ASSERT_THAT(test::text_of(follower->load(Oid{1}, at)), HasSubstr("python "));
    }
  }
  follower->sync();
  std::string tids;
  for (const auto& transaction : heard) tids += transaction.tid.hex() + "\n";
  EXPECT_EQ(tids, commits.get());
  EXPECT_EQ(heard.size(), 100u);
  EXPECT_EQ(test::digest_of(*follower), python_digest());
}

TEST_F(FileStorageBesidePython, Pack_IsFollowedAndWhatItRemovedIsNotFound) {
  python->run("filestorage.py", {"commit", path, "5"});
  const auto before = follower->sync();
  const auto kept = *follower->locate(Oid{1}, before);
  const auto removed = *follower->locate(Oid{1}, first);
  heard.clear();

  python->run("filestorage.py", {"pack", path});
  EXPECT_EQ(follower->sync(), before);
  EXPECT_TRUE(heard.empty());
  EXPECT_EQ(test::digest_of(*follower), python_digest());

  Bytes data(kept.size);
  follower->read(kept, 0, data);
  EXPECT_EQ(as_text(data), "python 4");
  Bytes gone(removed.size);
  EXPECT_THROW(follower->read(removed, 0, gone), NotFound);
  const auto [code, sentence] = error_of([&] { follower->load(Oid{1}, first); });
  EXPECT_EQ(code, ErrorCode::kNotFound);
  EXPECT_THAT(sentence, HasSubstr("packed away"));

  // Commits in the old file that nobody had seen, then a pack, then commits in the new one.
  const auto unseen = python->run("filestorage.py", {"commit", path, "2"});
  python->run("filestorage.py", {"pack", path});
  const auto later = python->run("filestorage.py", {"commit", path, "3"});
  follower->sync();
  std::string tids;
  for (const auto& transaction : heard) tids += transaction.tid.hex() + "\n";
  EXPECT_EQ(tids, unseen + later);
  EXPECT_EQ(test::digest_of(*follower), python_digest());
}

TEST_F(FileStorageBesidePython, Undo_IsReadAsPythonReadsIt) {
  python->run("filestorage.py", {"commit", path, "3"});
  for (int i = 0; i < 3; ++i) {
    python->run("filestorage.py", {"undo", path});
    follower->sync();
    EXPECT_EQ(test::digest_of(*follower), python_digest());
  }
}

// Each writes where the other stopped, on the other's index.
TEST_F(FileStorageBesidePython, WritersInTurn_KeepOneHistory) {
  for (int round = 0; round < 6; ++round) {
    python->run("filestorage.py", {"commit", path, "2"});
    {
      const auto storage = open_filestorage(path, OpenMode::kWrite);
      EXPECT_GE(storage->new_oid(), Oid{1001});
      test::commit(*storage, {{Oid{1}, "zbig " + std::to_string(round)}, {Oid{0}, "root"}},
                   {"zbig", "in turn", {}});
    }
    follower->sync();
    EXPECT_EQ(test::digest_of(*follower), python_digest());
  }
}

TEST_F(FileStorageBesidePython, Index_IsTheSameBytesAsPythons) {
  python->run("filestorage.py", {"commit", path, "20"});
  const auto of_python = test::slurp(path + ".index");
  std::filesystem::remove(path + ".index");
  open_filestorage(path, OpenMode::kWrite);
  EXPECT_EQ(test::slurp(path + ".index"), of_python);
}

// A database of Python 2 stays one: its magic, and an index that it reads.
TEST(FileStorageBesidePython2, CommitToItsDatabase_IsReadByPython2) {
  const auto python = test::Python::find("py2");
  if (!python) GTEST_SKIP() << test::Python::kMissing;
  const TempDir dir;
  const auto path = dir / "Data.fs";
  std::filesystem::copy_file(test::test_data("original/py2-undo/Data.fs"), path);
  {
    const auto storage = open_filestorage(path, OpenMode::kWrite);
    test::commit(*storage, {{Oid{1}, "zbig"}, {storage->new_oid(), "new"}}, {"zbig", "here", {}});
  }
  EXPECT_EQ(test::slurp(path).substr(0, 4), "FS21");
  EXPECT_EQ(python->run("filestorage.py", {"digest", path}),
            test::digest_of(*open_filestorage(path, OpenMode::kRead)) + "\n");
  python->run("filestorage.py", {"commit", path, "3"});
  EXPECT_EQ(python->run("filestorage.py", {"digest", path}),
            test::digest_of(*open_filestorage(path, OpenMode::kRead)) + "\n");
}

TEST_F(FileStorageBesidePython, WriterOfEither_KeepsTheOtherOut) {
  const auto storage = open_filestorage(path, OpenMode::kWrite);
  try {
    python->run("filestorage.py", {"commit", path, "1"});
    FAIL() << "Python wrote beside us";
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("LockError"));
  }
}

}  // namespace
}  // namespace zbig
