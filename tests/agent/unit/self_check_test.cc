// SPDX-License-Identifier: BSD-3-Clause
#include "agent/self_check.h"

#include <atomic>

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include "agent/control_client.h"
#include "agent/http_server.h"
#include "tests/support/temp_dir.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

class SelfCheckTest : public testing::Test {
 protected:
  test::TempDir dir_;
  const std::string socket_ = dir_ / "socket";
  const Fd stop_{::eventfd(0, EFD_CLOEXEC)};
};

TEST_F(SelfCheckTest, Answers_WithWhateverStatus_IsAlive) {
  for (const unsigned status : {200u, 503u}) {
    HttpServer server(listen_unix_socket(socket_), [&](const HttpRequest& request) {
      EXPECT_EQ(request.method + " " + request.target, "GET /v1/devices");
      return HttpResponse{status, "{}"};
    });
    EXPECT_TRUE(answers_itself(socket_, stop_, milliseconds(10000)));
    ::unlink(socket_.c_str());
  }
}

TEST_F(SelfCheckTest, Answers_HandlerHangs_IsNot) {
  std::atomic<bool> go_on = false;
  HttpServer server(listen_unix_socket(socket_), [&](const HttpRequest&) {
    go_on.wait(false);
    return HttpResponse{200, "{}"};
  });
  EXPECT_FALSE(answers_itself(socket_, stop_, milliseconds(100)));
  go_on = true;
  go_on.notify_all();
}

TEST_F(SelfCheckTest, Answers_NobodyAcceptsOrListens_IsNot) {
  EXPECT_FALSE(answers_itself(socket_, stop_, milliseconds(100)));
  const Fd listener = listen_unix_socket(socket_);
  EXPECT_FALSE(answers_itself(socket_, stop_, milliseconds(100)));
}

TEST_F(SelfCheckTest, Answers_ToldToStop_DoesNotWait) {
  const Fd listener = listen_unix_socket(socket_);
  ASSERT_EQ(::eventfd_write(stop_.get(), 1), 0);
  const auto before = Clock::now();
  EXPECT_FALSE(answers_itself(socket_, stop_, milliseconds(60000)));
  EXPECT_LT(Clock::now() - before, milliseconds(30000));
}

}  // namespace
}  // namespace zbig
