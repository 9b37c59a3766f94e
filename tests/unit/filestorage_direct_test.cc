// SPDX-License-Identifier: BSD-3-Clause
#include <filesystem>
#include <list>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/filestorage_lab.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"
#include "zodb/error.h"
#include "zodb/filestorage/filestorage.h"
#include "zodb/filestorage/format.h"

// FileStorage::read_direct, which reads where a record should be before it knows that it is there.

namespace zbig {
namespace {

using test::error_of;
using test::TempDir;
using ::testing::HasSubstr;

// A read with its buffers.
class Request {
 public:
  Request(Oid oid, std::size_t head, std::uint64_t offset, std::size_t out)
      : head_(head), out_(out) {
    read_.oid = oid;
    read_.head = head_;
    read_.offset = offset;
    read_.out = out_;
  }
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;

  // The same by the two steps, to compare with.
  std::string two_steps(const Storage& storage, Tid at) {
    storage.Storage::read_direct(std::span(&read_, 1), at);
    return answer();
  }
  std::string one_step(const Storage& storage, Tid at) {
    storage.read_direct(std::span(&read_, 1), at);
    return answer();
  }
  DirectRead take() const { return read_; }
  void give(const DirectRead& read) { read_ = read; }

  // The revision's tid and size, and what was read of it.
  std::string answer() const {
    if (!read_.ref) return "(none)";
    const auto part = [](const Bytes& buffer, std::size_t size) {
      return std::string(as_text(ByteView(buffer).first(size)));
    };
    return read_.ref->serial.hex() + " " + std::to_string(read_.ref->size) + " " +
           part(head_, read_.head_size) + "|" + part(out_, read_.out_size);
  }

 private:
  Bytes head_;
  Bytes out_;
  DirectRead read_;
};

std::vector<Tid> tids_of(const Storage& storage) {
  std::vector<Tid> out;
  const auto cursor = storage.transactions(kNoTid, kMaxTid, false);
  while (const auto transaction = cursor->next()) out.push_back(transaction->tid);
  return out;
}

// All objects in one batch, as of many transactions, parts of any size at any place.
TEST(FileStorageDirect, DatabasesOfTheOriginals_AreReadAsInTwoSteps) {
  std::mt19937 random(1);
  for (const char* name :
       {"original/py2-undo/Data.fs", "original/py3-undo/Data.fs", "original/py3-mixed/Data.fs",
        "original/py2-zodb4-old/Data.fs", "more/py2/undo.fs", "more/py3/undo.fs",
        "more/py3/history.fs", "more/py3/packed.fs"}) {
    SCOPED_TRACE(name);
    const auto storage = open_filestorage(test::test_data(name), OpenMode::kRead);
    auto oids = storage->changed_oids(kNoTid, kMaxTid);
    oids.push_back(Oid{0x7fffffff});
    auto tids = tids_of(*storage);
    std::shuffle(tids.begin(), tids.end(), random);
    tids.resize(std::min<std::size_t>(tids.size(), 20));
    tids.insert(tids.end(), {kNoTid, kMaxTid});
    for (const Tid at : tids) {
      std::shuffle(oids.begin(), oids.end(), random);
      std::list<Request> requests;
      std::vector<std::string> wanted;
      for (const Oid oid : oids) {
        const std::size_t head = random() % 100;
        Request& request = requests.emplace_back(oid, head, head + random() % 300, random() % 5000);
        try {
          wanted.push_back(request.two_steps(*storage, at));
        } catch (const NotFound&) {  // packed away
          EXPECT_THROW(request.one_step(*storage, at), NotFound);
          requests.pop_back();
        }
      }
      std::vector<DirectRead> batch;
      for (const auto& request : requests) batch.push_back(request.take());
      storage->read_direct(batch, at);
      std::size_t i = 0;
      for (auto& request : requests) {
        request.give(batch[i]);
        ASSERT_EQ(request.answer(), wanted[i]) << "object " << batch[i].oid.brief();
        ++i;
      }
    }
  }
}

// Objects 1 and 2 of two transactions; the file ends with 2's second revision.
class FileStorageDirectRead : public ::testing::Test {
 protected:
  FileStorageDirectRead() {
    const auto storage = open_filestorage(path, OpenMode::kCreate);
    first = test::commit(*storage, {{Oid{1}, "0123456789"}, {Oid{2}, "abcdefghij"}});
    second = test::commit(*storage, {{Oid{1}, "ABC"}, {Oid{2}, "xyz"}});
  }

  std::uint64_t record_of(Oid oid, Tid at) const {
    const auto ref = open_filestorage(path, OpenMode::kRead)->locate(oid, at);
    return ref->position - fs::RecordHeader::kSize;
  }
  // A transaction that undoes the second one for object 1, and makes object 2 nothing.
  Tid undo() {
    const auto file = test::slurp(path);
    const fs::RecordHeader one{.oid = Oid{1},
                               .tid = Tid{second.value + 1},
                               .previous = record_of(Oid{1}, second),
                               .transaction = file.size()};
    auto two = one;
    two.oid = Oid{2};
    two.previous = record_of(Oid{2}, second);
    fs::TransactionHeader header{.tid = one.tid};
    header.length = fs::TransactionHeader::kSize + one.full_size() + two.full_size();
    Bytes bytes;
    const auto number = [&](std::uint64_t value) {
      std::byte encoded[8];
      put_be<8>(encoded, value);
      append(bytes, encoded);
    };
    append(bytes, header.encode());
    append(bytes, one.encode());
    number(record_of(Oid{1}, first));
    append(bytes, two.encode());
    number(0);
    number(header.length);
    test::spew(path, file + std::string(as_text(bytes)));
    return one.tid;
  }

  TempDir dir;
  const std::string path = dir / "Data.fs";
  Tid first;
  Tid second;
};

TEST_F(FileStorageDirectRead, RevisionThatIsNotTheNewest_IsFound) {
  const auto storage = open_filestorage(path, OpenMode::kRead);
  EXPECT_EQ(Request(Oid{1}, 2, 7, 2).one_step(*storage, first), first.hex() + " 10 01|78");
  EXPECT_EQ(Request(Oid{1}, 2, 2, 1).one_step(*storage, second), second.hex() + " 3 AB|C");
  EXPECT_EQ(Request(Oid{1}, 2, 2, 1).one_step(*storage, Tid{first.value - 1}), "(none)");
}

TEST_F(FileStorageDirectRead, BackPointer_LeadsToWhatItHas) {
  const auto third = undo();
  const auto storage = open_filestorage(path, OpenMode::kRead);
  EXPECT_EQ(Request(Oid{1}, 2, 7, 2).one_step(*storage, third), third.hex() + " 10 01|78");
  EXPECT_EQ(Request(Oid{2}, 2, 7, 2).one_step(*storage, third), "(none)");
  EXPECT_EQ(Request(Oid{1}, 2, 2, 1).one_step(*storage, second), second.hex() + " 3 AB|C");
  EXPECT_EQ(Request(Oid{2}, 2, 2, 1).one_step(*storage, second), second.hex() + " 3 xy|z");
}

TEST_F(FileStorageDirectRead, RecordShorterThanThought_FillsWhatThereIs) {
  const auto storage = open_filestorage(path, OpenMode::kRead);
  for (const auto& [oid, text] : {std::pair(Oid{1}, "ABC"), std::pair(Oid{2}, "xyz")}) {
    const std::string answer = second.hex() + " 3 ";
    // Behind 1 comes 2, and behind 2 the end of the file.
    EXPECT_EQ(Request(oid, 100, 200, 1000).one_step(*storage, kMaxTid), answer + text + "|");
    EXPECT_EQ(Request(oid, 0, 1, 1000).one_step(*storage, kMaxTid), answer + "|" + (text + 1));
    EXPECT_EQ(Request(oid, 0, 3, 1).one_step(*storage, kMaxTid), answer + "|");
    EXPECT_EQ(Request(oid, 0, 1 << 30, 1).one_step(*storage, kMaxTid), answer + "|");
    EXPECT_EQ(Request(oid, 3, 3, 0).one_step(*storage, kMaxTid), answer + text + "|");
    EXPECT_EQ(Request(oid, 0, 0, 0).one_step(*storage, kMaxTid), answer + "|");
  }
}

// What a commit of another process writes behind the end is not there yet.
TEST_F(FileStorageDirectRead, BytesBehindWhatIsCommitted_AreNotAnswered) {
  const auto storage = open_filestorage(path, OpenMode::kRead);
  const auto writer = open_filestorage(path, OpenMode::kWrite);
  const auto transaction = writer->begin({});
  transaction->store(Oid{2}, second, as_bytes(std::string(1 << 20, '!')));
  transaction->vote();
  EXPECT_EQ(Request(Oid{2}, 100, 200, 1000).one_step(*storage, kMaxTid), second.hex() + " 3 xyz|");
  transaction->finish();
  EXPECT_EQ(Request(Oid{2}, 100, 200, 1000).one_step(*storage, kMaxTid), second.hex() + " 3 xyz|");
}

// The index leads to something that is no record of the object: damage that came after the file
// was opened, so that opening did not see it.
TEST_F(FileStorageDirectRead, NoRecordOfTheObjectThere_IsCorrupt) {
  const auto record = record_of(Oid{1}, second);
  const auto whole = test::slurp(path);
  const auto storage = open_filestorage(path, OpenMode::kRead);
  for (const auto& [what, offset] : {std::pair("oid", 7), std::pair("tid", 8),
                                     std::pair("transaction", 30), std::pair("data size", 34)}) {
    SCOPED_TRACE(what);
    auto file = whole;
    auto& byte = file[record + static_cast<std::size_t>(offset)];
    byte = static_cast<char>(byte ^ 0x40);
    test::spew(path, file);
    const auto [code, sentence] =
        error_of([&] { Request(Oid{1}, 2, 2, 1).one_step(*storage, kMaxTid); });
    EXPECT_EQ(code, ErrorCode::kCorrupt);
    EXPECT_THAT(sentence, HasSubstr(path + " at " + std::to_string(record)));
  }
  test::spew(path, whole);
  EXPECT_EQ(Request(Oid{1}, 2, 2, 1).one_step(*storage, kMaxTid), second.hex() + " 3 AB|C");
  std::filesystem::resize_file(path, record + 50);
  EXPECT_THROW(Request(Oid{2}, 2, 2, 1).one_step(*storage, kMaxTid), Corrupt);
}

}  // namespace
}  // namespace zbig
