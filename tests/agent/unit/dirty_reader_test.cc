// SPDX-License-Identifier: BSD-3-Clause
#include "agent/dirty_reader.h"

#include <string>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/support/temp_dir.h"
#include "zodb/error.h"

// The file alone; that a device's frozen writes come as they were written is in tests/agent.

namespace zbig {
namespace {

class DirtyReaderTest : public testing::Test {
 protected:
  DirtyReader reader(const std::string& content, ExtentList extents) const {
    const std::string path = dir_ / "layer";
    Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600));
    EXPECT_EQ(::pwrite(fd.get(), content.data(), content.size(), 8192),
              static_cast<ssize_t>(content.size()));
    return {"d", Tid{7}, std::move(fd), std::move(extents)};
  }

  test::TempDir dir_;
};

TEST_F(DirtyReaderTest, Read_Extent_GivesTheBytesOfItsOffset) {
  DirtyReader source = reader("abcdef", {{8192, 6}});
  EXPECT_EQ(source.total_bytes(), 6);
  EXPECT_EQ(source.base(), Tid{7});
  std::string out(3, ' ');
  source.read(8194, std::as_writable_bytes(std::span(out)));
  EXPECT_EQ(out, "cde");
}

TEST_F(DirtyReaderTest, EndAt_LeavesOutWhatLiesBehind) {
  DirtyReader source = reader("abcdef", {{0, 2}, {8192, 6}, {20000, 1}});
  source.end_at(8194);
  EXPECT_EQ(source.extents(), (ExtentList{{0, 2}, {8192, 2}}));
  EXPECT_EQ(source.total_bytes(), 4);
  source.end_at(0);
  EXPECT_TRUE(source.extents().empty());
}

TEST_F(DirtyReaderTest, Read_PastTheFile_FailsAndNamesTheDevice) {
  DirtyReader source = reader("abcdef", {{8192, 4096}});
  std::string out(4096, ' ');
  try {
    source.read(8192, std::as_writable_bytes(std::span(out)));
    FAIL() << "it was read";
  } catch (const Failed& error) {
    EXPECT_NE(std::string(error.what()).find("device d at 8198"), std::string::npos)
        << error.what();
  }
}

TEST(NbdUri, NamesWithSpecialCharacters_AreEncoded) {
  EXPECT_EQ(nbd_uri("/run/a b.sock", "/A/b#2"), "nbd+unix:///%2FA%2Fb%232?socket=/run/a%20b.sock");
}

}  // namespace
}  // namespace zbig
