// SPDX-License-Identifier: BSD-3-Clause
#include <chrono>
#include <condition_variable>
#include <functional>
#include <future>
#include <mutex>

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/support/filestorage_lab.h"
#include "tests/support/temp_dir.h"
#include "zodb/filestorage/filestorage.h"
#include "zodb/filestorage/format.h"

// What a commit syncs, and when: each sync costs milliseconds, and one too few loses a transaction.
// And that nobody who reads waits for one. The program's fdatasync stands in for libc's: it does
// the same, after telling the test.

namespace zbig {
namespace {

// Called with the path of the file before it is synced.
std::function<void(const std::string& path)> on_sync;

}  // namespace
}  // namespace zbig

extern "C" int fdatasync(int fd) {
  if (zbig::on_sync) {
    const auto link = "/proc/self/fd/" + std::to_string(fd);
    zbig::on_sync(std::filesystem::read_symlink(link).string());
  }
  return static_cast<int>(::syscall(SYS_fdatasync, fd));
}

namespace zbig {
namespace {

using test::TempDir;
using namespace std::chrono_literals;

class FileStorageSync : public ::testing::Test {
 protected:
  ~FileStorageSync() override { on_sync = nullptr; }

  TempDir dir;
  const std::string path = std::filesystem::canonical(dir.path()) / "Data.fs";
  const std::unique_ptr<Storage> storage = open_filestorage(path, OpenMode::kCreate);
};

TEST_F(FileStorageSync, Commit_SyncsAllButTheStatusAndThenTheStatus) {
  test::commit(*storage, {{Oid{0}, "root"}, {Oid{1}, "one"}});
  for (const std::size_t size : {10, 3 << 20}) {  // in one write, and in several
    const auto before = test::slurp(path);
    std::vector<std::string> synced;
    on_sync = [&](const std::string& file) {
      EXPECT_EQ(file, path);
      synced.push_back(test::slurp(file));
    };
    test::commit(*storage, {{storage->new_oid(), std::string(size, 'x')}, {Oid{1}, "more"}});
    on_sync = nullptr;
    ASSERT_EQ(synced.size(), 2u);
    const auto after = test::slurp(path);
    const auto status = before.size() + fs::TransactionHeader::kStatusOffset;
    EXPECT_EQ(synced[1], after);
    EXPECT_EQ(after[status], fs::TransactionHeader::kCommitted);
    auto voted = after;
    voted[status] = fs::TransactionHeader::kCheckpoint;
    EXPECT_EQ(synced[0], voted);
  }
}

// A disk that takes its time: each sync hangs until the test lets it go.
class SlowDisk {
 public:
  SlowDisk() {
    on_sync = [this](const std::string&) {
      std::unique_lock lock(mutex_);
      const int number = ++begun_;
      changed_.notify_all();
      changed_.wait_for(lock, 60s, [&] { return let_go_ >= number; });
    };
  }
  bool has_begun(int number) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 30s, [&] { return begun_ >= number; });
  }
  void let_go(int number) {
    const std::lock_guard lock(mutex_);
    let_go_ = number;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int begun_ = 0;
  int let_go_ = 0;
};

TEST_F(FileStorageSync, ReadersWhileACommitWaitsForTheDisk_DoNotWait) {
  const auto first = test::commit(*storage, {{Oid{0}, "root"}, {Oid{1}, "one"}});
  const auto follower = open_filestorage(path, OpenMode::kRead);
  const auto read_all_ways = [&](Storage& source) {
    source.sync();
    EXPECT_EQ(test::text_of(source.load(Oid{1}, first)), "one");
    const auto ref = source.locate(Oid{1}, first);
    EXPECT_EQ(ref->serial, first);
    Bytes bytes(3);
    source.read(*ref, 0, bytes);
    EXPECT_EQ(as_text(bytes), "one");
    DirectRead direct;
    direct.oid = Oid{1};
    direct.head = bytes;
    source.read_direct(std::span(&direct, 1), first);
    EXPECT_EQ(direct.ref->serial, first);
    EXPECT_FALSE(source.history(Oid{1}, 10).empty());
    EXPECT_EQ(source.changed_oids(kNoTid, first).size(), 2u);
  };

  SlowDisk disk;
  auto committed = std::async(std::launch::async, [&] {
    return test::commit(*storage, {{Oid{1}, "one more"}});
  });
  for (const int sync : {1, 2}) {  // of vote, of finish
    EXPECT_TRUE(disk.has_begun(sync));
    auto done = std::async(std::launch::async, [&] {
      read_all_ways(*storage);
      read_all_ways(*follower);
    });
    EXPECT_EQ(done.wait_for(20s), std::future_status::ready) << "sync " << sync;
    EXPECT_EQ(storage->last_tid(), first);  // not told before it is durable
    disk.let_go(sync);
  }
  EXPECT_EQ(follower->sync(), committed.get());
}

}  // namespace
}  // namespace zbig
