// SPDX-License-Identifier: BSD-3-Clause
#include "agent/daemon.h"

#include <array>
#include <cstdlib>
#include <cstring>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/support/temp_dir.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;

class ServiceManagerTest : public testing::Test {
 protected:
  void TearDown() override {
    for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) ::unsetenv(name);
  }
  static void set(const char* name, const std::string& value) { ::setenv(name, value.c_str(), 1); }
};

// What systemd would get at `address`, "@..." being an abstract one.
class Listener {
 public:
  explicit Listener(const std::string& address) : fd_(::socket(AF_UNIX, SOCK_DGRAM, 0)) {
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    std::memcpy(name.sun_path, address.data(), address.size());
    if (address[0] == '@') name.sun_path[0] = '\0';
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.size());
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&name), length), 0);
  }
  std::string message() const {
    std::array<char, 256> text;
    const ssize_t n = ::recv(fd_.get(), text.data(), text.size(), MSG_DONTWAIT);
    return n < 0 ? "" : std::string(text.data(), static_cast<std::size_t>(n));
  }

 private:
  Fd fd_;
};

TEST_F(ServiceManagerTest, Notify_SocketOfAPath_Arrives) {
  const test::TempDir dir;
  const Listener systemd(dir / "notify");
  set("NOTIFY_SOCKET", dir / "notify");
  ServiceManager().notify("READY=1");
  EXPECT_EQ(systemd.message(), "READY=1");
}

TEST_F(ServiceManagerTest, Notify_AbstractSocket_Arrives) {
  const std::string address = "@zbig-test-" + std::to_string(::getpid());
  const Listener systemd(address);
  set("NOTIFY_SOCKET", address);
  ServiceManager().notify("WATCHDOG=1");
  EXPECT_EQ(systemd.message(), "WATCHDOG=1");
}

TEST_F(ServiceManagerTest, Notify_NobodyOrNonsense_DoesNothing) {
  ServiceManager().notify("READY=1");
  set("NOTIFY_SOCKET", std::string(500, 'x'));
  ServiceManager().notify("READY=1");
  set("NOTIFY_SOCKET", "/no/such/socket");
  ServiceManager().notify("READY=1");
}

TEST_F(ServiceManagerTest, Environment_Taken_IsNotInherited) {
  set("NOTIFY_SOCKET", "/run/systemd/notify");
  set("WATCHDOG_USEC", "30000000");
  set("WATCHDOG_PID", std::to_string(::getpid()));
  const ServiceManager manager;
  EXPECT_EQ(manager.watchdog(), milliseconds(30000));
  for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) {
    EXPECT_EQ(std::getenv(name), nullptr) << name;
  }
}

TEST_F(ServiceManagerTest, Watchdog_OfAnotherProcessOrNoNumber_IsNone) {
  set("WATCHDOG_USEC", "30000000");
  set("WATCHDOG_PID", "1");
  EXPECT_EQ(ServiceManager().watchdog(), milliseconds(0));
  for (const char* value : {"", "soon", "-5", "0", "99999999999999999999999"}) {
    set("WATCHDOG_USEC", value);
    EXPECT_EQ(ServiceManager().watchdog(), milliseconds(0)) << value;
  }
}

}  // namespace
}  // namespace zbig
