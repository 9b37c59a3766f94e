// SPDX-License-Identifier: BSD-3-Clause
//
// KernelDevice on a real kernel; run by tests/vm/run in a virtual machine, as root.
#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/kernel_nbd/device.h"
#include "agent/kernel_nbd/drop_probe.h"
#include "agent/kernel_nbd/netlink.h"
#include "agent/kernel_nbd/node.h"
#include "tests/vm/rig.h"
#include "zodb/error.h"

namespace zbig::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr std::uint64_t kSize = 4 << 20;
constexpr std::uint64_t kBig = 16 << 20;

Deadline soon() { return deadline_in(seconds(10)); }

double seconds_since(steady_clock::time_point begin) {
  return std::chrono::duration<double>(steady_clock::now() - begin).count();
}

ErrorCode code_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    std::printf("  %s\n", error.what());
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::kFailed;
}

// Every test ends with no device attached.
class KernelDeviceTest : public testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(attached_devices(), 0); }
};

TEST_F(KernelDeviceTest, Attach_FreeIndex_HasNodeSizeIdentifierAndLink) {
  Server server(kSize);
  const auto device = KernelDevice::attach(options_for(server, "one"));
  struct stat info {};
  ASSERT_EQ(::stat(device->node().c_str(), &info), 0);
  EXPECT_TRUE(S_ISBLK(info.st_mode));
  EXPECT_EQ(device->size(), kSize);
  EXPECT_EQ(sysfs_read(device->index(), "size"), std::to_string(kSize / 512));
  EXPECT_EQ(sysfs_read(device->index(), "backend"), "zbig:one:1");
  EXPECT_EQ(sysfs_read(device->index(), "queue/logical_block_size"), "4096");
  EXPECT_EQ(sysfs_read(device->index(), "queue/write_zeroes_max_bytes"), "0");
  EXPECT_EQ(sysfs_read(device->index(), "queue/discard_max_bytes"), "0");
  EXPECT_EQ(sysfs_read(device->index(), "queue/max_sectors_kb"), "2048");
  EXPECT_EQ(sysfs_read(device->index(), "queue/read_ahead_kb"), "2048");
  EXPECT_TRUE(device->warnings().empty());
  EXPECT_EQ(ensure_link("one", device->index(), soon()), "/dev/zbig/one");
  EXPECT_EQ(::stat("/dev/zbig/one", &info), 0);
  EXPECT_TRUE(S_ISBLK(info.st_mode));
  EXPECT_FALSE(device->detach(DetachMode::kClean, soon()));
  remove_link("one", device->index(), soon());
  EXPECT_NE(::lstat("/dev/zbig/one", &info), 0);
  EXPECT_EQ(code_of([&] { device->sync(soon()); }), ErrorCode::kUnavailable);
}

TEST_F(KernelDeviceTest, Attach_GivenIndexBeyondTheModules_MadeAndBusyWhileUsed) {
  Server server(kSize);
  auto options = options_for(server, "far");
  options.index = 77;
  const auto device = KernelDevice::attach(options);
  EXPECT_EQ(device->node(), "/dev/nbd77");
  EXPECT_EQ(code_of([&] { KernelDevice::attach(options); }), ErrorCode::kBusy);
  device->detach(DetachMode::kClean, soon());
}

TEST_F(KernelDeviceTest, Attach_NodeMissing_IsMade) {
  Server server(kSize);
  ::unlink("/dev/nbd5");
  auto options = options_for(server, "bare");
  options.index = 5;
  const auto device = KernelDevice::attach(options);
  EXPECT_EQ(::access("/dev/nbd5", F_OK), 0);
  device->detach(DetachMode::kClean, soon());
}

TEST_F(KernelDeviceTest, Attach_ErrorsBeforeAndAfterTheKernelTookIt_LeaveNothing) {
  Server server(kSize);
  auto options = options_for(server, "bad");
  options.size = 4097;
  EXPECT_EQ(code_of([&] { KernelDevice::attach(options); }), ErrorCode::kInvalid);
  options.size = 2 * kSize;
  EXPECT_EQ(code_of([&] { KernelDevice::attach(options); }), ErrorCode::kInvalid);
  options.size = 0;
  options.identifier = "zbig:a/b";
  EXPECT_EQ(code_of([&] { KernelDevice::attach(options); }), ErrorCode::kInvalid);
  options = options_for(server, "bad");
  ::unlink("/dev/nbd6");
  ASSERT_EQ(::mkdir("/dev/nbd6", 0700), 0);
  options.index = 6;
  EXPECT_EQ(code_of([&] { KernelDevice::attach(options); }), ErrorCode::kFailed);
  ::rmdir("/dev/nbd6");
  server.freeze();
  options = options_for(server, "bad");
  options.deadline = deadline_in(milliseconds(500));
  EXPECT_EQ(code_of([&] { KernelDevice::attach(options); }), ErrorCode::kUnavailable);
  server.kill();
  EXPECT_EQ(code_of([&] { KernelDevice::attach(options_for(server, "bad")); }),
            ErrorCode::kUnavailable);
}

TEST_F(KernelDeviceTest, AttachDetach_HundredInParallel_LeaveNothing) {
  Server server(kSize);
  const int descriptors = open_descriptors();
  std::atomic<int> done = 0;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 5; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 20; ++i) {
          const std::string name = "p" + std::to_string(t);
          const auto device = KernelDevice::attach(options_for(server, name));
          ensure_link(name, device->index(), soon());
          char page[4096];
          const Fd fd(::open(("/dev/zbig/" + name).c_str(), O_RDONLY));
          if (::pread(fd.get(), page, sizeof page, 0) != sizeof page) ADD_FAILURE();
          device->detach(i % 2 == 0 ? DetachMode::kClean : DetachMode::kForce, soon());
          remove_link(name, device->index(), soon());
          ++done;
        }
      });
    }
  }
  EXPECT_EQ(done, 100);
  EXPECT_EQ(attached_devices(), 0);
  EXPECT_EQ(open_descriptors(), descriptors);
  EXPECT_NE(::access("/dev/zbig", F_OK), 0);
}

// nbd-client offers the kernel write-zeroes, and Linux 6.12 remembers that for the index.
TEST_F(KernelDeviceTest, Attach_IndexThatRemembersWriteZeroes_AnotherIsTaken) {
  Server server(kSize);
  if (shell("nbd-client -unix " + server.socket() + " /dev/nbd0 -N '' > /dev/null 2>&1") != 0) {
    GTEST_SKIP() << "nbd-client is not installed";
  }
  EXPECT_EQ(shell("nbd-client -d /dev/nbd0 > /dev/null 2>&1"), 0);
  while (sysfs_attached(0)) std::this_thread::sleep_for(milliseconds(10));
  const bool remembers = sysfs_remembers_write_zeroes(0);
  std::printf("  this kernel remembers: %d\n", remembers);
  const auto device = KernelDevice::attach(options_for(server, "clean"));
  EXPECT_EQ(device->index() == 0, !remembers);
  EXPECT_EQ(sysfs_read(device->index(), "queue/write_zeroes_max_bytes"), "0");
  device->detach(DetachMode::kClean, soon());
}

class DropPages : public KernelDeviceTest, public testing::WithParamInterface<Mapper::Access> {};

TEST_P(DropPages, MappedElsewhere_ExactlyTheExtentsAreFresh) {
  Server server(kSize, true);
  server.put(0, 'a', kSize);
  const auto device = KernelDevice::attach(options_for(server, "drop"));
  Mapper mapper(device->node(), GetParam(), kSize);
  constexpr std::uint64_t kPages = 64;
  for (std::uint64_t p = 0; p < kPages; ++p) ASSERT_EQ(mapper.load(p * kPageSize), 'a');
  server.put(0, 'b', kSize);
  for (std::uint64_t p = 0; p < kPages; ++p) ASSERT_EQ(mapper.load(p * kPageSize), 'a');
  // Bytes of page 3, all of page 10, 20 to 21 across their border.
  const ExtentList extents = {
      {3 * kPageSize + 100, 8}, {10 * kPageSize, kPageSize}, {21 * kPageSize - 1, 2}};
  EXPECT_TRUE(device->drop_pages(extents, DirtyPages::kKeep, soon()).empty());
  for (std::uint64_t p = 0; p < kPages; ++p) {
    const bool dropped = p == 3 || p == 10 || p == 20 || p == 21;
    EXPECT_EQ(mapper.load(p * kPageSize), dropped ? 'b' : 'a') << "page " << p;
  }
  // The last page, and what lies past it.
  EXPECT_TRUE(
      device
          ->drop_pages(std::vector<Extent>{{kSize - 1, UINT64_MAX / 2}}, DirtyPages::kKeep, soon())
          .empty());
  EXPECT_GT(server.requests("Read"), 0);
  EXPECT_EQ(server.requests("Trim"), 0);
  EXPECT_EQ(server.requests("Zero"), 0);
  EXPECT_EQ(server.requests("Write"), 0);
  EXPECT_EQ(server.get(10 * kPageSize), 'b');
  EXPECT_TRUE(device->detach(DetachMode::kClean, soon()));
}

INSTANTIATE_TEST_SUITE_P(Access, DropPages,
                         testing::Values(Mapper::Access::kReadOnly, Mapper::Access::kWritable,
                                         Mapper::Access::kLocked));

TEST_F(KernelDeviceTest, DropPages_ReadOnlyDevice_Fresh) {
  Server server(kSize);
  server.put(0, 'a', kSize);
  auto options = options_for(server, "ro");
  options.read_only = true;
  const auto device = KernelDevice::attach(options);
  EXPECT_TRUE(device->read_only());
  {
    Mapper mapper(device->node(), Mapper::Access::kReadOnly, kSize);
    EXPECT_EQ(mapper.load(0), 'a');
    server.put(0, 'b');
    EXPECT_TRUE(device->drop_pages(ExtentList{{0, 4096}}, DirtyPages::kKeep, soon()).empty());
    EXPECT_EQ(mapper.load(0), 'b');
  }
  device->detach(DetachMode::kClean, soon());
}

TEST_F(KernelDeviceTest, DropPages_DirtyAmongClean_IsKeptAndNamed) {
  Server server(kSize);
  server.put(0, 'a', kSize);
  const auto device = KernelDevice::attach(options_for(server, "dirty"));
  {
    Mapper mapper(device->node(), Mapper::Access::kWritable, kSize);
    for (std::uint64_t p = 0; p < 40; ++p) mapper.load(p * kPageSize);
    mapper.store(7 * kPageSize, 'L');
    mapper.store(33 * kPageSize + 5, 'L');
    server.put(0, 'b', kSize);
    const ExtentList all = {{0, kSize}};
    EXPECT_EQ(device->drop_pages(all, DirtyPages::kKeep, soon()),
              (ExtentList{{7 * kPageSize, kPageSize}, {33 * kPageSize, kPageSize}}));
    EXPECT_EQ(mapper.load(7 * kPageSize), 'L');
    EXPECT_EQ(mapper.load(33 * kPageSize), 'a');
    EXPECT_EQ(mapper.load(8 * kPageSize), 'b');
    // Written back, they go, and come again from the server.
    device->sync(soon());
    EXPECT_EQ(server.get(7 * kPageSize), 'L');
    EXPECT_TRUE(device->drop_pages(all, DirtyPages::kKeep, soon()).empty());
    EXPECT_EQ(mapper.load(33 * kPageSize + 5), 'L');
    // Given up, they are lost.
    server.put(0, 'c', kSize);
    mapper.store(7 * kPageSize, 'M');
    EXPECT_TRUE(device->drop_pages(all, DirtyPages::kDiscard, soon()).empty());
    EXPECT_EQ(mapper.load(7 * kPageSize), 'c');
    device->sync(soon());
    EXPECT_EQ(server.get(7 * kPageSize), 'c');
  }
  device->detach(DetachMode::kClean, soon());
}

TEST_F(KernelDeviceTest, Mounted_NothingIsDroppedAndCleanDetachRefused) {
  Server server(kBig);
  const auto device = KernelDevice::attach(options_for(server, "fs"));
  ASSERT_EQ(shell("mkfs.ext4 -q -F " + device->node()), 0);
  ::mkdir("/tmp/mnt", 0700);
  ASSERT_EQ(::mount(device->node().c_str(), "/tmp/mnt", "ext4", 0, nullptr), 0);
  EXPECT_TRUE(device->claimed(soon()));
  EXPECT_EQ(code_of([&] {
              device->drop_pages(ExtentList{{0, kBig}}, DirtyPages::kKeep, soon());
            }),
            ErrorCode::kBusy);
  EXPECT_EQ(code_of([&] {
              device->drop_pages(ExtentList{{0, kBig}}, DirtyPages::kDiscard, soon());
            }),
            ErrorCode::kBusy);
  EXPECT_EQ(code_of([&] { device->detach(DetachMode::kClean, soon()); }), ErrorCode::kBusy);
  EXPECT_EQ(shell("echo hello > /tmp/mnt/file && sync && umount /tmp/mnt"), 0);
  EXPECT_FALSE(device->claimed(soon()));
  EXPECT_FALSE(device->detach(DetachMode::kClean, soon()));
}

TEST_F(KernelDeviceTest, ServerKilled_Reconnected_NoErrorAndNothingLost) {
  Server server(kBig);
  const auto device = KernelDevice::attach(options_for(server, "phoenix"));
  LinkMonitor monitor;
  {
    Mapper mapper(device->node(), Mapper::Access::kWritable, kBig);
    std::atomic<bool> errors = false, stop = false;
    std::jthread healer([&] {
      while (!stop) {
        std::this_thread::sleep_for(milliseconds(10));
        while (const auto index = monitor.read()) {
          if (*index == device->index()) {
            try {
              device->reconnect(server.socket(), soon());
            } catch (const Error& error) {
              // The server is being started; the next message, or the next death, tries again.
              std::printf("  %s\n", error.what());
            }
          }
        }
      }
    });
    char byte = 'a';
    for (int round = 0; round < 5; ++round) {
      std::jthread writer([&] {
        for (std::uint64_t at = 0; at < kBig; at += kBig / 16) {
          if (!mapper.store_all(at, kBig / 16, byte)) errors = true;
          try {
            device->sync(deadline_in(seconds(30)));
          } catch (const Error& error) {
            std::printf("  %s\n", error.what());
            errors = true;
          }
        }
      });
      std::this_thread::sleep_for(milliseconds(50 + 30 * round));
      server.kill();
      server.start();
      device->reconnect(server.socket(), soon());
      writer.join();
      for (std::uint64_t at = 0; at < kBig; at += kPageSize) {
        ASSERT_EQ(server.get(at), byte) << at;
      }
      ++byte;
    }
    EXPECT_FALSE(errors);
    stop = true;
  }
  EXPECT_FALSE(device->detach(DetachMode::kClean, soon()));
}

// The kernel sends again what a dead server had not answered when the request's timer ends.
TEST_F(KernelDeviceTest, ServerKilledWithARequestUnderWay_SentAgainSoon) {
  Server server(kSize);
  server.put(0, 'a', kSize);
  const auto device = KernelDevice::attach(options_for(server, "resend"));
  {
    Mapper mapper(device->node(), Mapper::Access::kReadOnly, kSize);
    server.freeze();
    std::optional<char> byte;
    std::jthread reader([&] { byte = mapper.load(kPageSize); });
    std::this_thread::sleep_for(milliseconds(500));
    server.kill();
    server.start();
    const auto begin = steady_clock::now();
    device->reconnect(server.socket(), soon());
    reader.join();
    std::printf("  answered %.2f s after reconnect\n", seconds_since(begin));
    EXPECT_LT(seconds_since(begin), 8);
    EXPECT_EQ(byte, 'a');
  }
  device->detach(DetachMode::kClean, soon());
}

// A slow database is no dead one: with one connection nothing is ever cut for being slow.
TEST_F(KernelDeviceTest, ServerSlowerThanTheTimer_IsWaitedFor) {
  Server server(kSize);
  server.put(0, 'a', kSize);
  const auto device = KernelDevice::attach(options_for(server, "slow"));
  LinkMonitor monitor;
  {
    Mapper mapper(device->node(), Mapper::Access::kReadOnly, kSize);
    server.freeze();
    std::optional<char> byte;
    std::jthread reader([&] { byte = mapper.load(kPageSize); });
    std::this_thread::sleep_for(seconds(8));
    server.thaw();
    reader.join();
    EXPECT_EQ(byte, 'a');
    EXPECT_EQ(monitor.read(), std::nullopt);
  }
  device->detach(DetachMode::kClean, soon());
}

TEST_F(KernelDeviceTest, SeveralConnections_KilledAndReconnected_NoError) {
  Server server(kSize);
  auto options = options_for(server, "many");
  options.connections = 3;
  options.request_timeout = seconds(3);
  const auto device = KernelDevice::attach(options);
  {
    Mapper mapper(device->node(), Mapper::Access::kWritable, kSize);
    ASSERT_TRUE(mapper.store_all(0, kSize, 'a'));
    server.freeze();
    std::jthread writer([&] { EXPECT_NO_THROW(device->sync(deadline_in(seconds(40)))); });
    std::this_thread::sleep_for(milliseconds(500));
    server.kill();
    server.start();
    device->reconnect(server.socket(), soon());
    writer.join();
    for (std::uint64_t at = 0; at < kSize; at += kPageSize) ASSERT_EQ(server.get(at), 'a') << at;
  }
  device->detach(DetachMode::kClean, soon());
}

TEST_F(KernelDeviceTest, ServerDead_DetachClean_UnavailableAndForceEnds) {
  Server server(kSize);
  const auto device = KernelDevice::attach(options_for(server, "dead"));
  Mapper mapper(device->node(), Mapper::Access::kWritable, kSize);
  ASSERT_TRUE(mapper.store(0, 'x'));
  server.kill();
  EXPECT_EQ(code_of([&] { device->detach(DetachMode::kClean, deadline_in(seconds(1))); }),
            ErrorCode::kUnavailable);
  const auto begin = steady_clock::now();
  EXPECT_TRUE(device->detach(DetachMode::kForce, soon()));
  EXPECT_LT(seconds_since(begin), 10);
  EXPECT_EQ(mapper.load(0), 'x');                 // cached
  EXPECT_EQ(mapper.load(2 << 20), std::nullopt);  // SIGBUS
}

// The state that blocks DISCONNECT of the kernel itself: a sender in a full socket.
TEST_F(KernelDeviceTest, ServerFrozen_ForceDetachWithMappingsAndWritesUnderWay_EndsInTime) {
  Server server(kBig);
  const auto device = KernelDevice::attach(options_for(server, "frozen"));
  auto mapper = std::make_unique<Mapper>(device->node(), Mapper::Access::kWritable, kBig);
  ASSERT_TRUE(mapper->store_all(0, kBig, 'x'));
  server.freeze();
  EXPECT_EQ(code_of([&] { device->sync(deadline_in(seconds(1))); }), ErrorCode::kUnavailable);
  EXPECT_EQ(code_of([&] { device->detach(DetachMode::kClean, deadline_in(seconds(1))); }),
            ErrorCode::kUnavailable);
  const auto begin = steady_clock::now();
  EXPECT_TRUE(device->detach(DetachMode::kForce, soon()));
  std::printf("  forced in %.2f s\n", seconds_since(begin));
  EXPECT_LT(seconds_since(begin), 10);
  EXPECT_EQ(mapper->load(0), 'x');
  server.thaw();
  mapper.reset();
}

TEST_F(KernelDeviceTest, ServerFrozen_ReaderInAFault_ForceDetachGivesItSigbus) {
  Server server(kSize);
  const auto device = KernelDevice::attach(options_for(server, "fault"));
  Mapper mapper(device->node(), Mapper::Access::kReadOnly, kSize);
  server.freeze();
  std::optional<char> byte = 'x';
  std::jthread reader([&] { byte = mapper.load(kPageSize); });
  std::this_thread::sleep_for(milliseconds(200));
  EXPECT_TRUE(device->detach(DetachMode::kForce, soon()));
  reader.join();
  EXPECT_EQ(byte, std::nullopt);
  server.thaw();
}

TEST_F(KernelDeviceTest, Stranger_IsNeverAdoptedReconfiguredOrDisconnected) {
  Server server(kSize);
  auto options = options_for(server, "other");
  const auto stranger = KernelDevice::attach(options);
  options.index = stranger->index();
  options.identifier = device_identifier("mine", "1");
  EXPECT_EQ(code_of([&] { KernelDevice::adopt(options); }), ErrorCode::kNotFound);
  EXPECT_EQ(code_of([&] {
              NbdNetlink().reconfigure(stranger->index(), options.identifier, 2 * kSize, {});
            }),
            ErrorCode::kInvalid);
  EXPECT_EQ(sysfs_read(stranger->index(), "size"), std::to_string(kSize / 512));
  // Somebody disconnects our device: while we hold it open nobody else gets the index.
  NbdNetlink().disconnect(stranger->index());
  EXPECT_EQ(code_of([&] { KernelDevice::attach(options); }), ErrorCode::kBusy);
  stranger->detach(DetachMode::kForce, soon());
  // Attached by nbd-client: without any identifier.
  if (shell("nbd-client -unix " + server.socket() + " /dev/nbd3 -N '' > /dev/null 2>&1") == 0) {
    options.index = 3;
    EXPECT_EQ(code_of([&] { KernelDevice::adopt(options); }), ErrorCode::kNotFound);
    EXPECT_EQ(shell("nbd-client -d /dev/nbd3 > /dev/null 2>&1"), 0);
    std::this_thread::sleep_for(milliseconds(200));
  }
}

TEST_F(KernelDeviceTest, Adopt_AfterTheAgentWent_ReconnectsAndDetaches) {
  Server server(kSize);
  server.put(0, 'a', kSize);
  std::uint32_t index = 0;
  {
    const auto device = KernelDevice::attach(options_for(server, "heir"));
    index = device->index();
  }
  auto options = options_for(server, "heir");
  options.index = index;
  const auto device = KernelDevice::adopt(options);
  EXPECT_EQ(device->size(), kSize);
  Mapper mapper(device->node(), Mapper::Access::kWritable, kSize);
  server.kill();
  std::optional<char> byte;
  std::jthread reader([&] { byte = mapper.load(kPageSize); });
  std::this_thread::sleep_for(milliseconds(100));
  server.start();
  device->reconnect(server.socket(), soon());
  reader.join();
  EXPECT_EQ(byte, 'a');
  EXPECT_TRUE(device->detach(DetachMode::kClean, soon()));
}

TEST_F(KernelDeviceTest, Grow_WithinTheExport_SeenByAMapping) {
  Server server(kBig);
  server.put(kSize, 'n');
  auto options = options_for(server, "grow");
  options.size = kSize;
  const auto device = KernelDevice::attach(options);
  {
    Mapper mapper(device->node(), Mapper::Access::kWritable, kBig);
    EXPECT_EQ(mapper.load(kSize), std::nullopt);
    device->grow(2 * kSize, soon());
    EXPECT_EQ(mapper.load(kSize), 'n');
    EXPECT_EQ(sysfs_read(device->index(), "size"), std::to_string(2 * kSize / 512));
    EXPECT_EQ(code_of([&] { device->grow(kSize, soon()); }), ErrorCode::kInvalid);
    EXPECT_EQ(code_of([&] { device->grow(kBig + kPageSize, soon()); }), ErrorCode::kInvalid);
  }
  device->detach(DetachMode::kClean, soon());
}

TEST_F(KernelDeviceTest, Grow_UnderIo_NoError) {
  Server server(kBig);
  auto options = options_for(server, "grow2");
  options.size = kSize;
  const auto device = KernelDevice::attach(options);
  std::atomic<bool> stop = false, errors = false;
  {
    Mapper mapper(device->node(), Mapper::Access::kWritable, kSize);
    std::jthread writer([&] {
      for (char byte = 'a'; !stop; byte = byte == 'z' ? 'a' : static_cast<char>(byte + 1)) {
        if (!mapper.store_all(0, kSize, byte)) errors = true;
        try {
          device->sync(soon());
        } catch (const Error& error) {
          std::printf("  %s\n", error.what());
          errors = true;
        }
      }
    });
    for (std::uint64_t size = 2 * kSize; size <= kBig; size += kSize) {
      std::this_thread::sleep_for(milliseconds(100));
      const auto begin = steady_clock::now();
      device->grow(size, soon());
      std::printf("  grown in %.3f s\n", seconds_since(begin));
      server.put(size - kPageSize, 'e');
      Mapper tail(device->node(), Mapper::Access::kReadOnly, size);
      EXPECT_EQ(tail.load(size - kPageSize), 'e');
    }
    stop = true;
  }
  EXPECT_FALSE(errors);
  device->detach(DetachMode::kClean, soon());
}

TEST_F(KernelDeviceTest, Detach_Clean_WritesBackFirst) {
  Server server(kSize);
  const auto device = KernelDevice::attach(options_for(server, "save"));
  Mapper mapper(device->node(), Mapper::Access::kWritable, kSize);
  mapper.store(5 * kPageSize, 's');
  EXPECT_TRUE(device->detach(DetachMode::kClean, soon()));
  EXPECT_EQ(server.get(5 * kPageSize), 's');
}

TEST_F(KernelDeviceTest, DropProbe_ThisKernel_PunchesHoles) {
  const DropProbe probe = probe_drop_methods(soon());
  EXPECT_EQ(probe.writable, DropMethod::kPunchHole);
  EXPECT_EQ(probe.read_only, DropMethod::kPunchHole);
  // The fallback, which this kernel does not need.
  EXPECT_TRUE(drop_method_works(DropMethod::kDiscard, false, soon()));
  EXPECT_FALSE(drop_method_works(DropMethod::kNone, true, soon()));
}

}  // namespace
}  // namespace zbig::test
