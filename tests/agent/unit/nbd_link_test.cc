// SPDX-License-Identifier: BSD-3-Clause
#include "agent/fuse/nbd_link.h"

#include <chrono>
#include <csignal>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/temp_dir.h"

namespace zbig::fuse {
namespace {

// nbdkit, with a megabyte of memory.
class Server {
 public:
  explicit Server(const std::string& socket) {
    pid_ = ::fork();
    if (pid_ == 0) {
      ::execlp("nbdkit", "nbdkit", "-f", "-U", socket.c_str(), "memory", "1M", nullptr);
      ::_exit(127);
    }
  }
  ~Server() { kill(); }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
};

// A link that is ready.
std::unique_ptr<NbdLink> connect(const std::string& uri) {
  for (int i = 0; i < 1000; ++i) {
    auto link = std::make_unique<NbdLink>(uri);
    while (link->state() == NbdLink::State::kConnecting) {
      pollfd item{.fd = link->fd(), .events = link->events(), .revents = 0};
      ::poll(&item, 1, 1000);
      link->on_ready(item.revents);
    }
    if (link->state() == NbdLink::State::kReady) return link;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return nullptr;
}

TEST(NbdLink, ServerDiedUnnoticed_NextRequestBreaksItAndComesBack) {
  test::TempDir dir;
  const std::string socket = dir / "socket";
  Server server(socket);
  const auto link = connect("nbd+unix:///?socket=" + socket);
  ASSERT_TRUE(link);
  server.kill();
  std::byte bytes[512] = {};
  int called = 0;
  auto request = std::make_unique<NbdRequest>();
  request->kind = NbdRequest::Kind::kWrite;
  request->data = bytes;
  request->length = sizeof bytes;
  request->done = [&](int) { ++called; };
  link->submit(std::move(request));
  EXPECT_EQ(link->state(), NbdLink::State::kBroken);
  EXPECT_EQ(link->take_unfinished().size(), 1);
  EXPECT_EQ(called, 0);
}

}  // namespace
}  // namespace zbig::fuse
