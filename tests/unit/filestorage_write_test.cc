// SPDX-License-Identifier: BSD-3-Clause
#include <csignal>
#include <map>
#include <random>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/filestorage_lab.h"
#include "tests/support/temp_dir.h"
#include "zodb/error.h"
#include "zodb/filestorage/filestorage.h"

// FileStorage open for writing: what of the two phases is the file's, the lock, and every wrong
// place to open. What every backend does is in storage_contract_test.cc.

namespace zbig {
namespace {

using test::error_of;
using test::TempDir;
using ::testing::HasSubstr;

class FileStorageWrite : public ::testing::Test {
 protected:
  std::unique_ptr<Storage> create() { return open_filestorage(path, OpenMode::kCreate); }

  TempDir dir;
  const std::string path = dir / "Data.fs";
};

TEST_F(FileStorageWrite, NewDatabase_IsEmptyAndOfPython3) {
  const auto storage = create();
  EXPECT_EQ(test::slurp(path), "FS30");
  EXPECT_EQ(storage->last_tid(), kNoTid);
  EXPECT_FALSE(storage->read_only());
  EXPECT_FALSE(storage->load(kRootOid, kMaxTid));
  EXPECT_TRUE(storage->history(kRootOid, 10).empty());
  EXPECT_FALSE(storage->transactions(kNoTid, kMaxTid, false)->next());
  EXPECT_FALSE(storage->transactions(kNoTid, kMaxTid, true)->next());
  EXPECT_EQ(storage->new_oid(), Oid{1});
}

TEST_F(FileStorageWrite, AbortAnywhere_LeavesTheFileAsItWas) {
  const auto storage = create();
  test::commit(*storage, {{Oid{1}, "one"}});
  const auto before = test::slurp(path);
  const std::string large(3 << 20, 'x');
  for (const int step : {0, 1, 2, 3}) {
    {
      const auto transaction = storage->begin({"u", "d", {}});
      if (step >= 1) transaction->store(Oid{2}, kNoTid, as_bytes("two"));
      if (step >= 2) transaction->store(Oid{3}, kNoTid, as_bytes(large));
      if (step >= 3) transaction->vote();
      if (step == 1) transaction->abort();
    }
    EXPECT_EQ(test::slurp(path), before);
    EXPECT_FALSE(storage->load(Oid{2}, kMaxTid));
  }
  EXPECT_NE(storage->new_oid(), Oid{2});  // oids are not given out again
  test::commit(*storage, {{Oid{1}, "after"}});
  EXPECT_EQ(test::text_of(open_filestorage(path, OpenMode::kRead)->load(Oid{1}, kMaxTid)), "after");
}

TEST_F(FileStorageWrite, TransactionWithoutRecords_IsOne) {
  const auto storage = create();
  const auto tid = test::commit(*storage, {}, {"jo", "nothing", {}});
  EXPECT_EQ(storage->last_tid(), tid);
  EXPECT_EQ(open_filestorage(path, OpenMode::kRead)->last_tid(), tid);
}

TEST_F(FileStorageWrite, TextTooLong_IsInvalid) {
  const auto storage = create();
  const std::string longest(65535, 'x');
  test::commit(*storage, {}, {longest, longest, Bytes(65535)});
  for (const auto& meta :
       {TransactionMeta{longest + "x", "", {}}, {"", longest + "x", {}}, {"", "", Bytes(65536)}}) {
    EXPECT_THROW(storage->begin(meta), Invalid);
  }
  test::commit(*storage, {{Oid{1}, "still works"}});
}

TEST_F(FileStorageWrite, Oids_GoOnWhereTheFileEnds) {
  {
    const auto storage = create();
    test::commit(*storage, {{Oid{41}, "x"}, {Oid{0xfffffffff}, "y"}});
  }
  EXPECT_EQ(open_filestorage(path, OpenMode::kWrite)->new_oid(), Oid{0x1000000000});
}

TEST_F(FileStorageWrite, SecondWriter_IsBusyAndNamesThePid) {
  const auto storage = create();
  EXPECT_EQ(test::slurp(path + ".lock"), " " + std::to_string(::getpid()) + "\n");
  const auto [code, sentence] = error_of([&] { open_filestorage(path, OpenMode::kWrite); });
  EXPECT_EQ(code, ErrorCode::kBusy);
  EXPECT_THAT(sentence, HasSubstr("process " + std::to_string(::getpid())));
  EXPECT_NO_THROW(open_filestorage(path, OpenMode::kRead));
}

TEST_F(FileStorageWrite, LockFileWithoutALock_IsTaken) {
  test::spew(path + ".lock", " 4711 and more\n");
  { const auto storage = create(); }
  EXPECT_TRUE(std::filesystem::exists(path + ".lock"));
  EXPECT_EQ(test::slurp(path + ".lock"), " " + std::to_string(::getpid()) + "\n");
  open_filestorage(path, OpenMode::kWrite);
}

// --- wrong places to open

TEST_F(FileStorageWrite, MissingFile_IsNotFoundAndNothingIsMade) {
  for (const auto mode : {OpenMode::kRead, OpenMode::kWrite}) {
    const auto [code, sentence] = error_of([&] { open_filestorage(path, mode); });
    EXPECT_EQ(code, ErrorCode::kNotFound);
    EXPECT_THAT(sentence, HasSubstr(path));
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  EXPECT_EQ(error_of([&] { open_filestorage(dir / "no/Data.fs", OpenMode::kCreate); }).first,
            ErrorCode::kNotFound);
}

TEST_F(FileStorageWrite, DirectoryInPlaceOfTheFile_IsInvalid) {
  std::filesystem::create_directory(path);
  for (const auto mode : {OpenMode::kRead, OpenMode::kWrite, OpenMode::kCreate}) {
    const auto [code, sentence] = error_of([&] { open_filestorage(path, mode); });
    EXPECT_EQ(code, ErrorCode::kInvalid);
    EXPECT_THAT(sentence, HasSubstr(path + " is a directory"));
  }
}

TEST_F(FileStorageWrite, FifoInPlaceOfTheFile_IsInvalidAndDoesNotHang) {
  ASSERT_EQ(::mkfifo(path.c_str(), 0666), 0);
  for (const auto mode : {OpenMode::kRead, OpenMode::kWrite}) {
    EXPECT_EQ(error_of([&] { open_filestorage(path, mode); }).first, ErrorCode::kInvalid);
  }
}

TEST_F(FileStorageWrite, EmptyFile_IsAnEmptyDatabase) {
  test::spew(path, "");
  const auto reader = open_filestorage(path, OpenMode::kRead);
  EXPECT_EQ(reader->last_tid(), kNoTid);
  EXPECT_EQ(test::slurp(path), "");
  const auto writer = open_filestorage(path, OpenMode::kWrite);
  const auto tid = test::commit(*writer, {{Oid{0}, "root"}});
  EXPECT_EQ(reader->sync(), tid);
  EXPECT_EQ(test::text_of(reader->load(Oid{0}, tid)), "root");
}

TEST_F(FileStorageWrite, OtherContent_IsCorruptAndNamesTheFile) {
  for (const std::string content : {"F", "FS3", "FS31", "SQLite format 3", "fs30"}) {
    test::spew(path, content);
    for (const auto mode : {OpenMode::kRead, OpenMode::kWrite}) {
      const auto [code, sentence] = error_of([&] { open_filestorage(path, mode); });
      EXPECT_EQ(code, ErrorCode::kCorrupt);
      EXPECT_THAT(sentence, HasSubstr(path + " at 0: not a FileStorage"));
    }
    EXPECT_EQ(test::slurp(path), content);
  }
}

// Runs `fn` as a user who is not root, in a child; the code of the error it throws.
template <typename Fn>
ErrorCode as_nobody(Fn fn) {
  const auto child = ::fork();
  if (child == 0) {
    if (::setuid(65534) != 0) ::_exit(100);
    try {
      fn();
    } catch (const Error& error) {
      ::_exit(static_cast<int>(error.code()));
    }
    ::_exit(101);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return static_cast<ErrorCode>(WEXITSTATUS(status));
}

TEST_F(FileStorageWrite, NoPermission_IsSaid) {
  if (::getuid() != 0) GTEST_SKIP() << "NOT TESTED: needs root, to become another user";
  create();
  std::filesystem::permissions(dir.path(), std::filesystem::perms(0755));
  std::filesystem::permissions(path, std::filesystem::perms(0644));
  EXPECT_EQ(as_nobody([&] { open_filestorage(path, OpenMode::kWrite); }), ErrorCode::kReadOnly);
  EXPECT_EQ(as_nobody([&] { open_filestorage(dir / "new.fs", OpenMode::kCreate); }),
            ErrorCode::kReadOnly);
  std::filesystem::permissions(path, std::filesystem::perms(0600));
  EXPECT_EQ(as_nobody([&] { open_filestorage(path, OpenMode::kRead); }), ErrorCode::kFailed);
}

// --- a full disk

// The content of `path` is `before` and a commit works again.
void expect_as_before(Storage& storage, const std::string& path, const std::string& before) {
  EXPECT_EQ(test::slurp(path), before);
  const auto tid = test::commit(storage, {{Oid{1}, "small"}});
  EXPECT_EQ(open_filestorage(path, OpenMode::kRead)->last_tid(), tid);
}

void store_much(Storage& storage, std::size_t size) {
  const std::string megabyte(1 << 20, 'x');
  const auto transaction = storage.begin({});
  for (std::size_t done = 0; done < size; done += megabyte.size()) {
    transaction->store(storage.new_oid(), kNoTid, as_bytes(megabyte));
  }
  transaction->vote();
  transaction->finish();
}

TEST_F(FileStorageWrite, FileSizeLimit_IsNoSpaceAndTheFileIsAsBefore) {
  const auto storage = create();
  test::commit(*storage, {{Oid{1}, "one"}});
  const auto before = test::slurp(path);
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit low{5u << 20, old.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &low);
  EXPECT_THROW(store_much(*storage, 10u << 20), NoSpace);
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  expect_as_before(*storage, path, before);
}

TEST_F(FileStorageWrite, FullDisk_IsNoSpaceAndTheFileIsAsBefore) {
  const auto disk = dir / "disk";
  std::filesystem::create_directory(disk);
  if (::mount("zbig-test", disk.c_str(), "tmpfs", 0, "size=8m") != 0) {
    GTEST_SKIP() << "NOT TESTED: needs root, to mount a small tmpfs";
  }
  {
    const auto place = disk + "/Data.fs";
    const auto storage = open_filestorage(place, OpenMode::kCreate);
    test::commit(*storage, {{Oid{1}, "one"}});
    const auto before = test::slurp(place);
    EXPECT_THROW(store_much(*storage, 20u << 20), NoSpace);
    expect_as_before(*storage, place, before);
    // Full before the first byte: nothing but the status of an old transaction fits.
    store_much(*storage, 6u << 20);
    const auto fuller = test::slurp(place);
    EXPECT_THROW(store_much(*storage, 3u << 20), NoSpace);
    EXPECT_EQ(test::slurp(place), fuller);
  }
  ::umount2(disk.c_str(), MNT_DETACH);
}

TEST_F(FileStorageWrite, FileReplacedUnderTheWriter_NothingIsCommittedToTheOldOne) {
  const auto storage = create();
  test::commit(*storage, {{Oid{1}, "one"}});
  std::filesystem::copy_file(path, path + ".copy");
  std::filesystem::rename(path + ".copy", path);
  const auto [code, sentence] = error_of([&] { storage->begin({}); });
  EXPECT_EQ(code, ErrorCode::kFailed);
  EXPECT_THAT(sentence, HasSubstr(path + " was replaced"));
  EXPECT_THROW(storage->load(Oid{1}, kMaxTid), Failed);
}

// --- against a model

TEST_F(FileStorageWrite, RandomCommits_AreWhatAModelSays) {
  std::mt19937 random(11);
  std::map<Oid, std::map<Tid, std::string>> model;
  auto storage = create();
  std::vector<Tid> tids = {kNoTid};
  for (int round = 0; round < 150; ++round) {
    if (round % 17 == 16) {
      storage.reset();
      if (random() % 2 == 0) std::filesystem::remove(path + ".index");
      storage = open_filestorage(path, OpenMode::kWrite);
    }
    const auto transaction = storage->begin({"", std::to_string(round), {}});
    std::map<Oid, std::string> stored;
    for (auto n = random() % 8; n > 0; --n) {
      const bool fresh = model.empty() || random() % 3 == 0;
      const auto oid =
          fresh ? storage->new_oid()
                : std::next(model.begin(), static_cast<long>(random() % model.size()))->first;
      std::string data(1 + (random() % 10 == 0 ? random() % 200000 : random() % 300), '\0');
      for (auto& c : data) c = static_cast<char>(random());
      const auto& revisions = model[oid];
      transaction->store(oid, revisions.empty() ? kNoTid : revisions.rbegin()->first,
                         as_bytes(data));
      stored[oid] = data;
    }
    if (random() % 4 == 0) {
      if (random() % 2 == 0) transaction->vote();
      transaction->abort();
    } else {
      transaction->vote();
      tids.push_back(transaction->finish());
      for (const auto& [oid, data] : stored) model[oid][tids.back()] = data;
    }
    std::erase_if(model, [](const auto& entry) { return entry.second.empty(); });
    const auto at = tids[random() % tids.size()];
    for (const auto& [oid, revisions] : model) {
      const auto after = revisions.upper_bound(at);
      const auto record = storage->load(oid, at);
      ASSERT_EQ(record.has_value(), after != revisions.begin());
      if (record) {
        ASSERT_EQ(record->serial, std::prev(after)->first);
        ASSERT_EQ(test::text_of(record), std::prev(after)->second);
      }
    }
  }
  EXPECT_EQ(test::content_of(*open_filestorage(path, OpenMode::kRead)), test::content_of(*storage));
}

// Readers beside a writer. Under TSan this is the test of the locks; here, of the values.
TEST_F(FileStorageWrite, ReadersBesideAWriter_SeeWholeTransactions) {
  const auto storage = create();
  test::commit(*storage, {{Oid{1}, "0"}, {Oid{2}, "0"}});
  const auto follower = open_filestorage(path, OpenMode::kRead);
  std::atomic<Tid> seen{follower->last_tid()};
  const auto subscription = follower->subscribe([&](Tid tid, std::span<const Oid>) {
    EXPECT_LT(follower->last_tid(), tid);
    seen = tid;
  });
  std::atomic<int> reads{0};
  {
    std::vector<std::jthread> readers;
    for (const Storage* source : {storage.get(), follower.get()}) {
      readers.emplace_back([&, source](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
          const auto at = source->last_tid();
          const std::vector<Oid> oids = {Oid{1}, Oid{2}};
          std::vector<std::optional<Record>> records(2);
          source->load(oids, at, 100, records);
          ASSERT_EQ(test::text_of(records[0]), test::text_of(records[1]));
          std::vector<std::optional<RecordRef>> refs(2);
          source->locate(oids, at, refs);
          ASSERT_EQ(refs[0]->serial, refs[1]->serial);
          ++reads;
        }
      });
    }
    readers.emplace_back([&](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        const auto tid = follower->sync();
        ASSERT_EQ(seen.load(), tid);
      }
    });
    for (int i = 1; i <= 300 || reads < 1000; ++i) {
      const auto text = std::to_string(i);
      test::commit(*storage, {{Oid{1}, text}, {Oid{2}, text}});
      if (i % 7 == 0) {
        const auto aborted = storage->begin({});
        aborted->store(storage->new_oid(), kNoTid, as_bytes("never"));
        aborted->vote();
      }
    }
  }
  EXPECT_EQ(follower->sync(), storage->last_tid());
}

}  // namespace
}  // namespace zbig
