// SPDX-License-Identifier: BSD-3-Clause
#include "agent/program_freeze.h"

#include <chrono>
#include <fstream>
#include <functional>
#include <thread>

#include <gtest/gtest.h>
#include <unistd.h>

#include "agent/freeze_mark.h"
#include "agent/mounts.h"
#include "tests/support/temp_dir.h"
#include "zodb/error.h"

// What is frozen, and thawed again, is in tests/agent/freeze_test.sh and tests/vm.

namespace zbig {
namespace {

ErrorCode code_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return ErrorCode::kFailed;
}

TEST(ParseFreeze, Words_AreWhatTheySay) {
  EXPECT_EQ(parse_freeze("none").kind, FreezeKind::kNone);
  EXPECT_EQ(parse_freeze("fs").kind, FreezeKind::kFileSystems);
  const FreezeChoice choice = parse_freeze("cgroup=/sys/fs/cgroup/a=b");
  EXPECT_EQ(choice.kind, FreezeKind::kCgroup);
  EXPECT_EQ(choice.cgroup, "/sys/fs/cgroup/a=b");
}

TEST(ParseFreeze, AnythingElse_IsInvalid) {
  for (const char* text : {"", "all", "fs ", "cgroup", "cgroup=", "cgroup=a", "cgroup=/a\nfs /"}) {
    EXPECT_EQ(code_of([&] { parse_freeze(text); }), ErrorCode::kInvalid) << text;
  }
}

TEST(Mountinfo, Lines_AreTakenApart) {
  const auto mounts = parse_mountinfo(
      "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
      "36 35 43:0 /sub /a\\040b\\134c rw shared:1 master:2 - ext4 /dev/nbd0 rw,errors=continue\n");
  ASSERT_EQ(mounts.size(), 2);
  EXPECT_EQ(mounts[0].mount_point, "/");
  EXPECT_EQ(mounts[1].device, "43:0");
  EXPECT_EQ(mounts[1].escaped, "/a\\040b\\134c");
  EXPECT_EQ(mounts[1].mount_point, "/a b\\c");
  EXPECT_EQ(mounts[1].type, "ext4");
  EXPECT_EQ(mounts[1].source, "/dev/nbd0");
}

TEST(Mountinfo, LinesThatAreNone_AreLeftOut) {
  EXPECT_TRUE(parse_mountinfo("").empty());
  EXPECT_TRUE(parse_mountinfo("22 1 8:1 / / rw\n- -\n\n").empty());
}

TEST(Unescaped, LoneBackslash_Stays) {
  EXPECT_EQ(unescaped("\\"), "\\");
  EXPECT_EQ(unescaped("a\\04"), "a\\04");
  EXPECT_EQ(unescaped("\\089\\012"), "\\089\n");
}

bool soon_gone(const std::string& path) {
  for (int i = 0; i < 1000 && ::access(path.c_str(), F_OK) == 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return ::access(path.c_str(), F_OK) != 0;
}

TEST(FreezeMark, OfWhatIsGone_IsRemoved) {
  test::TempDir dir;
  const std::string mark = dir / "frozen";
  std::ofstream(mark) << "fs /nothing\\040here\ncgroup /nothing\nnonsense\n";
  thaw_marked(mark);
  EXPECT_TRUE(soon_gone(mark));
  thaw_marked(mark);
}

TEST(FreezeMark, AnotherInItsPlace_IsNotRemoved) {
  test::TempDir dir;
  const std::string path = dir / "frozen";
  const FreezeMark old(path, FreezeMark::line_of_cgroup("/a"));
  const FreezeMark next(path, FreezeMark::line_of_cgroup("/b"));
  old.remove();
  EXPECT_EQ(::access(path.c_str(), F_OK), 0);
  next.remove();
  EXPECT_NE(::access(path.c_str(), F_OK), 0);
}

TEST(ProgramFreeze, FolderThatIsNoCgroup_IsInvalidAndLeavesNoMark) {
  test::TempDir dir;
  const std::string mark = dir / "frozen";
  EXPECT_EQ(code_of([&] { ProgramFreeze::of_cgroup(dir.path(), {}, mark); }), ErrorCode::kInvalid);
  EXPECT_NE(::access(mark.c_str(), F_OK), 0);
}

TEST(ProgramFreeze, NodeThatIsNotMounted_IsRefused) {
  test::TempDir dir;
  const std::vector<std::string> nodes{dir / "file"};
  const ErrorCode wanted = ::geteuid() == 0 ? ErrorCode::kInvalid : ErrorCode::kUnsupported;
  EXPECT_EQ(code_of([&] { ProgramFreeze::of_file_systems(nodes, dir.path(), dir / "frozen", {}); }),
            wanted);
}

}  // namespace
}  // namespace zbig
