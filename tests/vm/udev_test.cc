// SPDX-License-Identifier: BSD-3-Clause
//
// The part of udev_test.sh that attaches; disabled unless that script has started udevd.
#include <array>
#include <cstdio>
#include <filesystem>

#include <gtest/gtest.h>

#include "agent/kernel_nbd/node.h"
#include "tests/vm/rig.h"

namespace zbig::test {
namespace {

std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = ::popen(command.c_str(), "r");
  std::array<char, 4096> buffer;
  for (std::size_t n; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    text.append(buffer.data(), n);
  }
  ::pclose(pipe);
  return text;
}

TEST(WithUdev, DISABLED_Attach_LinkAndPropertiesComeFromTheRules) {
  Server server(4 << 20, true);
  auto options = options_for(server, "vol-A.1");
  publish_properties(options.identifier, {"vol-A.1",
                                          {{"ZBIG_VOLUME", "/site/my \"A\" array"},
                                           {"ZBIG_OID", "000000000000002a"},
                                           {"ZBIG_DTYPE", "<f8"},
                                           {"ZBIG_SHAPE", "1000,1000"}}});
  const auto device = KernelDevice::attach(options);
  const Deadline soon = deadline_in(std::chrono::seconds(30));
  ASSERT_EQ(shell("udevadm settle -t 30"), 0);
  // Udev has made it, before it is asked for.
  EXPECT_EQ(std::filesystem::canonical("/dev/zbig/vol-A.1"), device->node());
  EXPECT_EQ(ensure_link("vol-A.1", device->index(), soon), "/dev/zbig/vol-A.1");
  const std::string all = output_of("udevadm info -q property " + device->node());
  for (const char* line :
       {"ZBIG_NAME=vol-A.1\n", "ZBIG_VOLUME=/site/my %22A%22 array\n", "ZBIG_DTYPE=<f8\n",
        "ZBIG_OID=000000000000002a\n", "ZBIG_SHAPE=1000,1000\n", "SYSTEMD_READY=1\n",
        "DEVLINKS=/dev/zbig/vol-A.1\n"}) {
    EXPECT_NE(all.find(line), std::string::npos) << line << "not in\n" << all;
  }
  EXPECT_EQ(all.find("ID_FS"), std::string::npos) << all;
  // Neither udev's events nor a writer's close make anybody read the volume.
  EXPECT_EQ(
      shell("dd if=/dev/zero of=" + device->node() + " bs=4096 count=1 conv=fsync status=none"), 0);
  EXPECT_EQ(shell("udevadm settle -t 30"), 0);
  EXPECT_EQ(server.requests("Read"), 0);
  EXPECT_FALSE(device->detach(DetachMode::kClean, soon));
  remove_link("vol-A.1", device->index(), soon);
  withdraw_properties(options.identifier);
  EXPECT_FALSE(std::filesystem::is_symlink("/dev/zbig/vol-A.1"));
  ASSERT_EQ(shell("udevadm settle -t 30"), 0);
  EXPECT_EQ(output_of("udevadm info -q property " + node_path(device->index())).find("ZBIG_NAME"),
            std::string::npos);
}

}  // namespace
}  // namespace zbig::test
