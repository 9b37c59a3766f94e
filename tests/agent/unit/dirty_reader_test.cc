// SPDX-License-Identifier: BSD-3-Clause
#include "agent/dirty_reader.h"

#include <algorithm>
#include <random>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "agent/service_process.h"
#include "tests/support/temp_dir.h"

// Against nbdkit's file plugin: a sparse file has block status, as a frozen device has.

namespace zbig {
namespace {

using std::chrono::milliseconds;

class DirtyReaderTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kSize = 64u << 20;

  void SetUp() override {
    socket_ = dir_ / "nbd.sock";
    file_ = dir_ / "file";
    const Fd fd(::open(file_.c_str(), O_RDWR | O_CREAT, 0600));
    ASSERT_EQ(::ftruncate(fd.get(), kSize), 0);
    content_.resize(kSize);
    std::mt19937_64 random(1);
    for (const Extent& extent : wanted_) {
      std::generate_n(content_.begin() + static_cast<std::ptrdiff_t>(extent.offset), extent.length,
                      [&] { return static_cast<std::byte>(random()); });
      ASSERT_EQ(::pwrite(fd.get(), &content_[extent.offset], extent.length,
                         static_cast<off_t>(extent.offset)),
                static_cast<ssize_t>(extent.length));
    }
    const std::vector<std::string> command = {
        "nbdkit", "-f", "-U", socket_, "file", file_, "--filter=delay", "rdelay=1ms"};
    server_ = ServiceProcess::start(dir_ / "lock", command, dir_ / "log");
    for (int i = 0; i < 1000 && !listens(); ++i) ::usleep(10000);
  }
  void TearDown() override { server_->stop(milliseconds(1000)); }

  std::unique_ptr<NbdConnection> connect() const {
    return std::make_unique<NbdConnection>(socket_, "");
  }
  // The socket is there a moment before somebody listens.
  bool listens() const {
    try {
      connect();
    } catch (const Unavailable&) {
      return false;
    }
    return true;
  }
  std::vector<std::byte> part(std::uint64_t offset, std::uint64_t length) const {
    return {&content_[offset], &content_[offset] + length};
  }

  const ExtentList wanted_ = {
      {0, 4096}, {1u << 20, 8192}, {5u << 20, 40u << 20}, {kSize - 4096, 4096}};
  test::TempDir dir_;
  std::string socket_;
  std::string file_;
  std::vector<std::byte> content_;
  std::optional<ServiceProcess> server_;
};

TEST_F(DirtyReaderTest, Read_UpwardsInBlocks_GivesTheBytes) {
  DirtyReader reader(socket_, connect());
  EXPECT_EQ(reader.extents(), wanted_);
  EXPECT_EQ(reader.total_bytes(), 4096 + 8192 + (40u << 20) + 4096);
  for (const Extent& extent : reader.extents()) {
    constexpr std::uint64_t kBlock = 2u << 20;
    for (std::uint64_t at = extent.offset; at < extent.end();) {
      const std::uint64_t end = std::min(extent.end(), (at / kBlock + 1) * kBlock);
      std::vector<std::byte> out(end - at);
      reader.read(at, out);
      ASSERT_EQ(out, part(at, end - at)) << at;
      at = end;
    }
  }
}

TEST_F(DirtyReaderTest, Read_BackwardsAndInAnyOrder_GivesTheBytes) {
  DirtyReader reader(socket_, connect());
  std::mt19937_64 random(2);
  for (int i = 0; i < 60; ++i) {
    const Extent& extent = wanted_[random() % wanted_.size()];
    const std::uint64_t skip = random() % extent.length;
    const std::uint64_t length =
        1 + random() % std::min<std::uint64_t>(3u << 20, extent.length - skip);
    std::vector<std::byte> out(length);
    reader.read(extent.offset + skip, out);
    ASSERT_EQ(out, part(extent.offset + skip, length)) << i;
  }
}

TEST_F(DirtyReaderTest, Read_SomeExtentsSkipped_GivesTheBytes) {
  DirtyReader reader(socket_, connect());
  std::vector<std::byte> out(4096);
  reader.read((44u << 20) + 512, out);
  EXPECT_EQ(out, part((44u << 20) + 512, 4096));
  reader.read(kSize - 4096, out);
  EXPECT_EQ(out, part(kSize - 4096, 4096));
}

TEST_F(DirtyReaderTest, Read_ServerKilled_IsUnavailable) {
  DirtyReader reader(socket_, connect());
  std::vector<std::byte> out(1u << 20);
  reader.read(5u << 20, out);
  server_->kill();
  EXPECT_THROW(
      {
        for (std::uint64_t at = 6u << 20; at < 45u << 20; at += out.size()) reader.read(at, out);
      },
      Unavailable);
}

TEST_F(DirtyReaderTest, Destroyed_WithReadsUnderWay_Ends) {
  DirtyReader reader(socket_, connect());
  std::vector<std::byte> out(4096);
  reader.read(0, out);
}

TEST_F(DirtyReaderTest, Release_EverythingRead_GivesAConnectionToUseAgain) {
  auto connection = connect();
  for (int round = 0; round < 3; ++round) {
    DirtyReader reader(socket_, std::move(connection));
    for (const Extent& extent : reader.extents()) {
      std::vector<std::byte> out(extent.length);
      reader.read(extent.offset, out);
      ASSERT_EQ(out, part(extent.offset, extent.length)) << round;
    }
    connection = reader.release();
    ASSERT_TRUE(connection) << round;
    EXPECT_TRUE(connection->quiet());
  }
  server_->kill();
  ::usleep(100000);
  EXPECT_FALSE(connection->quiet());
}

TEST_F(DirtyReaderTest, Open_NoServer_IsUnavailable) {
  EXPECT_THROW(NbdConnection(dir_ / "nothing", ""), Unavailable);
}

TEST(NbdUri, Encode_NamesOfVolumes_AreSafe) {
  EXPECT_EQ(nbd_uri("/run/a b.sock", "/A/b#2"), "nbd+unix:///%2FA%2Fb%232?socket=/run/a%20b.sock");
}

}  // namespace
}  // namespace zbig
