// SPDX-License-Identifier: BSD-3-Clause
#include "agent/service_process.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/support/temp_dir.h"
#include "zodb/error.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;

class ServiceProcessTest : public testing::Test {
 protected:
  ServiceProcess start(std::vector<std::string> command) {
    return ServiceProcess::start(dir_ / "lock", command, dir_ / "log");
  }
  std::optional<ServiceProcess> find() { return ServiceProcess::find(dir_ / "lock"); }
  test::TempDir dir_;
};

TEST_F(ServiceProcessTest, Find_WhileItRuns_IsThatOne) {
  const ServiceProcess process = start({"sleep", "100"});
  const auto found = find();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->pid(), process.pid());
  EXPECT_TRUE(found->alive());
  EXPECT_THROW(start({"sleep", "100"}), Busy);
  EXPECT_TRUE(found->stop(milliseconds(5000)));
  EXPECT_FALSE(process.alive());
}

TEST_F(ServiceProcessTest, Find_AfterItsEnd_IsNothing) {
  const ServiceProcess process = start({"sleep", "100"});
  process.kill();
  EXPECT_TRUE(process.wait_end(milliseconds(5000)));
  EXPECT_FALSE(find());
  EXPECT_TRUE(start({"true"}).wait_end(milliseconds(5000)));
}

TEST_F(ServiceProcessTest, Stop_IgnoresSigterm_IsKilled) {
  const ServiceProcess process = start({"sh", "-c", "trap '' TERM; echo ready; exec sleep 100"});
  while (last_line_of(dir_ / "log") != "ready") ::usleep(1000);
  EXPECT_TRUE(process.stop(milliseconds(100)));
}

TEST_F(ServiceProcessTest, Start_NoSuchProgram_EndsAndSaysWhy) {
  const ServiceProcess process = start({"no-such-program-of-zbig"});
  EXPECT_TRUE(process.wait_end(milliseconds(5000)));
  EXPECT_EQ(last_line_of(dir_ / "log"), "no-such-program-of-zbig: cannot be executed");
}

}  // namespace
}  // namespace zbig
