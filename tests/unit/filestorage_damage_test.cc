// SPDX-License-Identifier: BSD-3-Clause
#include <functional>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/support/filestorage_lab.h"
#include "tests/support/format_page.h"
#include "tests/support/temp_dir.h"
#include "zodb/error.h"
#include "zodb/filestorage/filestorage.h"

// Damage: each field of the worked example wrong in turn, every bit of it, and system calls that
// fail in the middle of a commit.

namespace zbig {
namespace {

using test::error_of;
using test::TempDir;
using ::testing::HasSubstr;

std::string example() {
  return std::string(as_text(test::hex_examples("filestorage.md").at("Data.fs")));
}

void patch(std::string& file, std::size_t position, std::uint64_t value, std::size_t size) {
  for (std::size_t i = size; i-- > 0; value >>= 8) {
    file[position + i] = static_cast<char>(value & 0xff);
  }
}

struct Damage {
  const char* what;
  std::size_t position;
  std::uint64_t value;
  std::size_t size;
  ErrorCode code;
  const char* sentence;
};

TEST(FileStorageDamage, WrongField_IsRefusedAndNamesTheOffset) {
  for (const auto& damage : {
           Damage{"length shorter than the header", 0x0c, 30, 8, ErrorCode::kCorrupt,
                  " at 4: the transaction's length, 30,"},
           {"length again", 0x9e, 155, 8, ErrorCode::kCorrupt,
            " at 158: the transaction's length at"},
           {"status", 0x14, 'x', 1, ErrorCode::kCorrupt, " at 4: unknown transaction status 120"},
           {"tid not later", 0xa6, 0x03f5945815555555, 8, ErrorCode::kCorrupt,
            " at 166: transaction 03f5945815555555 is not later"},
           {"tid of a record", 0x3c, 0x03f5945815555556, 8, ErrorCode::kCorrupt,
            " at 52: the record of object 0x0 is not of the transaction"},
           {"transaction of a record", 0x4c, 5, 8, ErrorCode::kCorrupt,
            " at 52: the record of object 0x0 is not of the transaction"},
           {"previous", 0xe5, 0x35, 8, ErrorCode::kCorrupt, " at 213: the record of object"},
           {"previous of a new object", 0x16a, 0x34, 8, ErrorCode::kCorrupt,
            " at 346: the record of object"},
           {"oid", 0xd5, 2, 8, ErrorCode::kCorrupt, " at 213: the record of object"},
           {"data shorter", 0x56, 0x3f, 8, ErrorCode::kCorrupt, " at 157: a record's header runs"},
           {"data longer", 0x56, 0x41, 8, ErrorCode::kCorrupt, " at 52: the record of object"},
           {"data of 2^64 - 1 bytes", 0x56, ~std::uint64_t{0}, 8, ErrorCode::kCorrupt,
            " at 52: the record of object"},
           {"a version", 0x54, 1, 2, ErrorCode::kUnsupported, " at 52: a record in a version"},
       }) {
    SCOPED_TRACE(damage.what);
    const TempDir dir(TempDir::Medium::kMemory);
    const auto path = dir / "Data.fs";
    auto file = example();
    patch(file, damage.position, damage.value, damage.size);
    test::spew(path, file);
    for (const auto mode : {OpenMode::kRead, OpenMode::kWrite}) {
      const auto [code, sentence] = error_of([&] { open_filestorage(path, mode); });
      EXPECT_EQ(code, damage.code);
      EXPECT_THAT(sentence, HasSubstr(path + damage.sentence));
      EXPECT_EQ(test::slurp(path), file);
    }
  }
}

TEST(FileStorageDamage, TransactionUndoneInPlace_IsSkippedButItsTidCounts) {
  const TempDir dir;
  const auto path = dir / "Data.fs";
  auto file = example();
  file[0xb6] = 'u';
  test::spew(path, file);
  const auto storage = open_filestorage(path, OpenMode::kWrite);
  EXPECT_EQ(storage->last_tid().hex(), "03f594581bbbbbbb");
  EXPECT_FALSE(storage->load(Oid{1}, kMaxTid));
  EXPECT_EQ(storage->load(Oid{0}, kMaxTid)->serial.hex(), "03f5945815555555");
  EXPECT_EQ(storage->transactions(kNoTid, kMaxTid, true)->next()->tid.hex(), "03f5945815555555");
  const auto tid = test::commit(*storage, {{Oid{1}, "new"}});
  EXPECT_EQ(open_filestorage(path, OpenMode::kRead)->last_tid(), tid);
}

// A turned bit that is not in data or in a text is an error, or hides the last transaction as a
// crash would; and never shows an older revision under a newer tid.
TEST(FileStorageDamage, EveryBitTurned_NeverGivesAnotherState) {
  const TempDir dir(TempDir::Medium::kMemory);
  const auto path = dir / "Data.fs";
  const auto whole = example();
  test::spew(path, whole);
  const auto after = test::content_of(*open_filestorage(path, OpenMode::kRead));
  test::spew(path, whole.substr(0, 0xa6));
  const auto before = test::content_of(*open_filestorage(path, OpenMode::kRead));
  const std::vector<std::pair<std::size_t, std::size_t>> not_covered = {
      {0, 4},          // from FS30 to FS21 are four bits
      {0x1b, 0x34},    // description
      {0x5e, 0x9e},    // data
      {0xbd, 0xd5},    // user, description, extension
      {0xff, 0x15a},   // data
      {0x15a, 0x162},  // the oid of a new object: no other byte tells it
      {0x184, 0x1c4}};
  for (std::size_t bit = 0; bit < whole.size() * 8; ++bit) {
    const auto byte = bit / 8;
    const bool skipped =
        std::any_of(not_covered.begin(), not_covered.end(),
                    [&](const auto& range) { return byte >= range.first && byte < range.second; });
    if (skipped) continue;
    auto file = whole;
    file[byte] = static_cast<char>(file[byte] ^ 1 << bit % 8);
    test::spew(path, file);
    std::string content;
    try {
      content = test::content_of(*open_filestorage(path, OpenMode::kRead));
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(path + " at "));
      continue;
    }
    const bool first_hidden = content.empty() && byte < 0xa6;
    ASSERT_TRUE(content == before || first_hidden) << "bit " << bit << "\n" << content;
  }
}

// Puts another descriptor in the place of the one that `path` is open with for writing, and back.
class BrokenDescriptor {
 public:
  explicit BrokenDescriptor(const std::string& path) {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code gone;
      if (std::filesystem::read_symlink(entry.path(), gone) != path) continue;
      const auto number = std::stoi(entry.path().filename());
      if ((::fcntl(number, F_GETFL) & O_ACCMODE) == O_RDWR) fd_ = number;
    }
    saved_ = ::dup(fd_);
    const int read_only = ::open(path.c_str(), O_RDONLY);
    ::dup2(read_only, fd_);
    ::close(read_only);
  }
  ~BrokenDescriptor() {
    ::dup2(saved_, fd_);
    ::close(saved_);
  }

 private:
  int fd_ = -1;
  int saved_ = -1;
};

class FileStorageFailingDisk : public ::testing::Test {
 protected:
  FileStorageFailingDisk() {
    storage = open_filestorage(path, OpenMode::kCreate);
    first = test::commit(*storage, {{Oid{1}, "one"}});
    content = test::content_of(*storage);
  }
  TempDir dir;
  const std::string path = dir / "Data.fs";
  std::unique_ptr<Storage> storage;
  Tid first;
  std::string content;
};

TEST_F(FileStorageFailingDisk, AtVote_AbortsAndTheNextCommitWorks) {
  const auto transaction = storage->begin({});
  transaction->store(Oid{2}, kNoTid, as_bytes("two"));
  {
    const BrokenDescriptor broken(path);
    EXPECT_THROW(transaction->vote(), Failed);
  }
  EXPECT_EQ(test::content_of(*storage), content);
  const auto tid = test::commit(*storage, {{Oid{2}, "two"}});
  EXPECT_EQ(open_filestorage(path, OpenMode::kRead)->last_tid(), tid);
}

TEST_F(FileStorageFailingDisk, AtAbort_TheNextTransactionCutsOffWhatWasLeft) {
  {
    const auto transaction = storage->begin({});
    transaction->store(Oid{2}, kNoTid, as_bytes(std::string(100000, 'x')));
    transaction->vote();
    const BrokenDescriptor broken(path);
    transaction->abort();
  }
  EXPECT_EQ(test::content_of(*open_filestorage(path, OpenMode::kRead)), content);
  const auto tid = test::commit(*storage, {{Oid{2}, "two"}});
  const auto reader = open_filestorage(path, OpenMode::kRead);
  EXPECT_EQ(reader->last_tid(), tid);
  EXPECT_LT(std::filesystem::file_size(path), 1000u);
}

TEST_F(FileStorageFailingDisk, AtFinish_NothingGoesOnUntilItIsOpenedAgain) {
  {
    const auto transaction = storage->begin({});
    transaction->store(Oid{2}, kNoTid, as_bytes("two"));
    transaction->vote();
    const BrokenDescriptor broken(path);
    const auto [code, sentence] = error_of([&] { transaction->finish(); });
    EXPECT_EQ(code, ErrorCode::kFailed);
    EXPECT_THAT(sentence, HasSubstr("may be committed or not"));
  }
  EXPECT_THROW(storage->load(Oid{1}, first), Failed);
  EXPECT_THROW(storage->begin({}), Failed);
  EXPECT_THROW(storage->sync(), Failed);
  storage.reset();
  storage = open_filestorage(path, OpenMode::kWrite);
  EXPECT_EQ(test::content_of(*storage), content);
  test::commit(*storage, {{Oid{2}, "two"}});
}

}  // namespace
}  // namespace zbig
