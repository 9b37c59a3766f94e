// SPDX-License-Identifier: BSD-3-Clause
//
// What of agent/kernel_nbd needs no nbd in the kernel: the handshake with servers good and bad,
// pages, names, calls with a deadline, calls that are left behind. The rest is tested in tests/vm/.
#include <array>
#include <atomic>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/kernel_nbd/errand.h"
#include "agent/kernel_nbd/handshake.h"
#include "agent/kernel_nbd/node.h"
#include "agent/kernel_nbd/page_drop.h"
#include "agent/kernel_nbd/worker.h"
#include "zodb/error.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;

std::string be(std::uint64_t value, int bytes) {
  std::string result;
  for (int i = bytes - 1; i >= 0; --i) result += static_cast<char>(value >> (8 * i));
  return result;
}

const std::string kGreeting = "NBDMAGICIHAVEOPT" + be(3, 2);

std::string reply(std::uint32_t type, const std::string& data) {
  return be(0x3e889045565a9, 8) + be(7, 4) + be(type, 4) + be(data.size(), 4) + data;
}

std::string export_info(std::uint64_t size, std::uint16_t flags) {
  return reply(3, be(0, 2) + be(size, 8) + be(flags, 2));
}

// The outcome of a handshake with a server that says `words` and then, unless `stays`, goes.
struct Outcome {
  std::optional<NbdSocket> socket;
  std::optional<ErrorCode> error;
  std::string sentence, heard;
};
Outcome handshake_with(const std::string& words, bool stays = false) {
  std::array<int, 2> ends = {};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  Fd server(ends[1]);
  EXPECT_EQ(::write(server.get(), words.data(), words.size()), static_cast<ssize_t>(words.size()));
  if (!stays) ::shutdown(server.get(), SHUT_WR);
  Outcome outcome;
  try {
    outcome.socket = nbd_handshake(Fd(ends[0]), "connect", "A", deadline_in(milliseconds(100)));
  } catch (const Error& error) {
    outcome.error = error.code();
    outcome.sentence = error.what();
  }
  std::array<char, 4096> heard;
  const ssize_t length = ::recv(server.get(), heard.data(), heard.size(), MSG_DONTWAIT);
  outcome.heard.assign(heard.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
  return outcome;
}

TEST(NbdHandshake, GoodServer_SizeFlagsBlocksAndNothingReadTooMuch) {
  const std::string next = "the kernel's first reply";
  auto outcome = handshake_with(kGreeting + export_info(65536, 0x10d) +
                                reply(3, be(3, 2) + be(512, 4) + be(4096, 4) + be(1 << 25, 4)) +
                                reply(3, be(99, 2) + "of the future") + reply(1, "") + next);
  ASSERT_TRUE(outcome.socket) << outcome.sentence;
  EXPECT_EQ(outcome.socket->size, 65536U);
  EXPECT_EQ(outcome.socket->flags, 0x10d);
  EXPECT_EQ(outcome.socket->minimum_block, 512U);
  EXPECT_EQ(outcome.socket->maximum_request, 1U << 25);
  std::array<char, 100> rest;
  const ssize_t length = ::read(outcome.socket->fd.get(), rest.data(), rest.size());
  EXPECT_EQ(std::string(rest.data(), static_cast<std::size_t>(length)), next);
  // Client flags, NBD_OPT_GO, name, one information request: no structured replies, nothing else.
  EXPECT_EQ(outcome.heard,
            be(3, 4) + "IHAVEOPT" + be(7, 4) + be(9, 4) + be(1, 4) + "A" + be(1, 2) + be(3, 2));
}

TEST(NbdHandshake, BadServers_OneLineAndACode) {
  const auto code = [](const std::string& words) { return handshake_with(words).error; };
  EXPECT_EQ(code(""), ErrorCode::kUnavailable);
  EXPECT_EQ(code("NBDMAGIC"), ErrorCode::kUnavailable);
  EXPECT_EQ(code("HTTP/1.1 400 Bad Request\r\n"), ErrorCode::kCorrupt);
  EXPECT_EQ(code("NBDMAGIC" + be(0x0000420281861253, 8) + be(0, 2)), ErrorCode::kUnsupported);
  EXPECT_EQ(code("NBDMAGICIHAVEOPT" + be(0, 2)), ErrorCode::kUnsupported);
  EXPECT_EQ(code(kGreeting + reply(1, "")), ErrorCode::kCorrupt);
  EXPECT_EQ(code(kGreeting + reply(3, be(0, 2) + "short")), ErrorCode::kCorrupt);
  EXPECT_EQ(code(kGreeting + reply(3, "x")), ErrorCode::kCorrupt);
  EXPECT_EQ(code(kGreeting + export_info(65536, 0)), ErrorCode::kCorrupt);
  EXPECT_EQ(code(kGreeting + be(0x3e889045565a9, 8) + be(7, 4) + be(3, 4) + be(0xffffffff, 4)),
            ErrorCode::kCorrupt);
  EXPECT_EQ(code(kGreeting + be(1, 8) + be(7, 4) + be(1, 4) + be(0, 4)), ErrorCode::kCorrupt);
  EXPECT_EQ(code(kGreeting + reply(0x80000001, "")), ErrorCode::kUnsupported);
  EXPECT_EQ(code(kGreeting + reply(0x80000005, "")), ErrorCode::kUnsupported);
  EXPECT_EQ(code(kGreeting + reply(0x80000007, "")), ErrorCode::kUnavailable);
  std::string endless = kGreeting;
  for (int i = 0; i < 200; ++i) endless += export_info(65536, 1);
  EXPECT_EQ(code(endless), ErrorCode::kCorrupt);
}

TEST(NbdHandshake, NoSuchExport_SaysWhatTheServerSays) {
  const auto outcome = handshake_with(kGreeting + reply(0x80000006, "no volume\n/A\x01here"));
  EXPECT_EQ(outcome.error, ErrorCode::kNotFound);
  EXPECT_EQ(outcome.sentence, "connect: no volume /A here");
}

TEST(NbdHandshake, SilentServer_UnavailableAtTheDeadline) {
  const auto outcome = handshake_with(kGreeting, true);
  EXPECT_EQ(outcome.error, ErrorCode::kUnavailable);
  EXPECT_EQ(outcome.sentence, "connect: no answer in time");
}

TEST(NbdConnectSocket, NobodyListens_Unavailable) {
  EXPECT_THROW(nbd_connect("/nowhere/socket", "A", deadline_in(milliseconds(100))), Unavailable);
  EXPECT_THROW(nbd_connect(std::string(200, 'x'), "A", deadline_in(milliseconds(100))), Invalid);
}

TEST(WholePages, Extents_WidenedCutAndJoined) {
  constexpr std::uint64_t kSize = 10 * kPageSize;
  EXPECT_EQ(whole_pages({}, kSize), ExtentList{});
  const std::array<Extent, 7> extents = {Extent{4095, 2},        {3 * 4096, 0}, {9 * 4096 + 1, 1},
                                         {8 * 4096, UINT64_MAX}, {kSize, 5},    {5 * 4096 + 7, 1},
                                         {2 * 4096, 1}};
  EXPECT_EQ(whole_pages(extents, kSize),
            (ExtentList{{0, 3 * 4096}, {5 * 4096, 4096}, {8 * 4096, 2 * 4096}}));
}

TEST(DeviceName, OnlyWhatUdevKeepsAsItIs) {
  for (const char* good : {"A", "site-data_1.2", "a+b=c@d"}) EXPECT_TRUE(valid_link_name(good));
  for (const char* bad : {"", ".", "..", ".hidden", "a/b", "a b", "a%b", "a\"b", "\xc3\xa9"}) {
    EXPECT_FALSE(valid_link_name(bad)) << bad;
  }
  EXPECT_FALSE(valid_link_name(std::string(65, 'a')));
}

TEST(KernelErrand, RunApart_GivesWhatTheCallReturnsOrThrows) {
  const Fd file(::open("/dev/null", O_RDWR | O_CLOEXEC));
  const std::string large(300000, 'x');
  EXPECT_EQ(run_apart(file.get(), [&] { return large; }, {}), large);
  EXPECT_EQ(run_apart(file.get(),
                      [] {
                        const std::filesystem::directory_iterator all("/proc/self/fd");
                        return std::to_string(std::distance(begin(all), end(all)));
                      },
                      {}),
            "6");  // three standard ones, the device, the pipe, the folder that is being read
  EXPECT_THROW(run_apart(file.get(), []() -> std::string { throw Busy("no"); }, {}), Busy);
  EXPECT_THROW(run_apart(file.get(), []() -> std::string { ::_exit(0); }, {}), Failed);
}

TEST(KernelErrand, RunApart_CallThatHangs_IsLeftBehind) {
  const Fd file(::open("/dev/null", O_RDWR | O_CLOEXEC));
  std::stop_source stop;
  std::jthread later([&] {
    std::this_thread::sleep_for(milliseconds(30));
    stop.request_stop();
  });
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THROW(run_apart(
                   file.get(),
                   []() -> std::string {
                     std::this_thread::sleep_for(std::chrono::seconds(3));
                     return "";
                   },
                   stop.get_token()),
               Unavailable);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
}

// The end of a pipe stands for the device: its last close is seen at the other.
TEST(KernelErrand, CloseApart_OurClosesAreNotTheLast) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK), 0);
  const Fd other(ends[0]);
  Fd device(ends[1]);
  Fd until = close_apart(device.get());
  device = Fd();
  char byte = 0;
  EXPECT_EQ(::read(other.get(), &byte, 1), -1);  // it is open still
  until = Fd();
  pollfd end = {other.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&end, 1, 5000), 1);
  EXPECT_EQ(::read(other.get(), &byte, 1), 0);
}

TEST(KernelWorker, CallThatHangs_CallerLeavesAtTheDeadlineAndALateCallIsNeverBegun) {
  std::atomic<bool> release = false, late = false;
  Worker worker;
  EXPECT_THROW(worker.run(
                   [&] {
                     while (!release) std::this_thread::sleep_for(milliseconds(1));
                   },
                   deadline_in(milliseconds(20)), "hang"),
               Unavailable);
  EXPECT_THROW(worker.run([&] { late = true; }, deadline_in(milliseconds(20)), "late"),
               Unavailable);
  release = true;
  EXPECT_THROW(worker.run([] { throw Busy("no"); }, deadline_in(milliseconds(5000)), "next"), Busy);
  EXPECT_FALSE(late);
}

}  // namespace
}  // namespace zbig
