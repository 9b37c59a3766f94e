// SPDX-License-Identifier: BSD-3-Clause
#include <chrono>
#include <cstring>
#include <functional>
#include <random>
#include <thread>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nbdkit-plugin/overlay_layer.h"
#include "overlay_fixture.h"

// What is left of an overlay when the server is killed, the machine loses power, or the disk is
// full.

namespace zbig {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::uint64_t dirty_bytes(const Overlay& overlay) { return overlay.status().dirty_bytes; }

// --- each state that a crash can leave, one by one

TEST_F(OverlayTest, OverlayCrash_Killed_WritesAreDirtyOnTheirOwnView) {
  auto overlay = open();
  overlay->move_view(next_view_, ExtentList{});
  overlay->write(100, filled(5000, 1));
  const auto shown = read(*overlay);
  view_ = next_view_;
  const auto again = open(copy_as_killed("killed"));
  EXPECT_EQ(recorded_, kSecond);
  EXPECT_EQ(dirty_bytes(*again), 2 * kPageSize);
  EXPECT_EQ(again->status().base, kSecond);
  EXPECT_EQ(read(*again, 0, 2 * kPageSize), std::vector(shown.begin(), shown.begin() + 8192));
}

// The kernel has pages of the first view still, when the server is started again.
TEST_F(OverlayTest, OverlayCrash_KilledBeforeItSettled_BaseStaysOld) {
  auto overlay = open();
  overlay->move_view(next_view_, ExtentList{{0, kPageSize}});
  view_ = next_view_;
  auto again = open(copy_as_killed("clean"));
  EXPECT_FALSE(again->status().settled);
  again->write(0, filled(1, 1));
  again->settled();
  EXPECT_EQ(again->status().base, kFirst);
  overlay->write(0, filled(1, 1));
  again = open(copy_as_killed("dirty"));
  EXPECT_EQ(recorded_, kSecond);
  EXPECT_FALSE(again->status().settled);
  EXPECT_EQ(again->status().base, kFirst);
  again.reset();
  overlay->abort(next_view_, ExtentList{});
  overlay->settled();
  EXPECT_TRUE(open(copy_as_killed("settled"))->status().settled);
}

TEST_F(OverlayTest, OverlayCrash_RebootedBeforeItSettled_NobodyHasOldPages) {
  const auto overlay = open();
  overlay->move_view(next_view_, ExtentList{{0, kPageSize}});
  view_ = next_view_;
  const auto again = open(copy_as_after_reboot("rebooted"));
  EXPECT_TRUE(again->status().settled);
  EXPECT_EQ(again->status().base, kSecond);
}

TEST_F(OverlayTest, OverlayCrash_KilledWhileFrozen_FoldsBack) {
  const auto overlay = open();
  overlay->write(0, filled(2 * kPageSize, 1));
  overlay->freeze();
  overlay->write(kPageSize, filled(2 * kPageSize, 2));
  const auto again = open(copy_as_killed("killed"));
  EXPECT_EQ(read(*again), read(*overlay));
  EXPECT_EQ(dirty_bytes(*again), 3 * kPageSize);
  EXPECT_EQ(again->status().frozen_bytes, 0u);
}

TEST_F(OverlayTest, OverlayCrash_KilledInTheMiddleOfFolding_FoldsTheRest) {
  const auto overlay = open();
  overlay->write(0, filled(10 * kPageSize, 1));
  overlay->freeze();
  overlay->write(kPageSize, filled(8 * kPageSize, 2));
  const std::string copy = copy_as_killed("killed");
  {
    // Half of the top is in the bottom already.
    const auto bottom = Layer::load(copy, 1, kSize, Layer::Trust::kLive);
    const auto bytes = filled(4 * kPageSize, 2);
    const ByteView part = bytes;
    bottom->write(1, std::span(&part, 1));
  }
  const auto again = open(copy);
  EXPECT_EQ(read(*again), read(*overlay));
  EXPECT_EQ(dirty_bytes(*again), 10 * kPageSize);
}

TEST_F(OverlayTest, OverlayCrash_KilledRightAfterACommit_OnlyWhatCameSinceIsDirty) {
  const auto overlay = open();
  overlay->write(0, filled(2 * kPageSize, 1));
  overlay->freeze();
  overlay->write(5 * kPageSize, filled(kPageSize, 2));
  overlay->committed(next_view_, ExtentList{});
  const auto again = open(copy_as_killed("killed"));
  EXPECT_EQ(recorded_, kSecond);
  EXPECT_EQ(dirty_bytes(*again), kPageSize);
}

TEST_F(OverlayTest, OverlayCrash_KilledRightAfterAnAbort_NothingIsDirty) {
  const auto overlay = open();
  overlay->write(0, filled(2 * kPageSize, 1));
  overlay->abort(next_view_, ExtentList{});
  const auto again = open(copy_as_killed("killed"));
  EXPECT_EQ(dirty_bytes(*again), 0u);
}

TEST_F(OverlayTest, OverlayCrash_StateTornWhileItWasSaved_PreviousOneCounts) {
  auto overlay = open();
  overlay->write(0, filled(kPageSize, 1));
  overlay->flush();
  overlay->freeze();
  overlay->committed(next_view_, ExtentList{});  // saved, not synced: the files are there still
  const std::string copy = copy_as_killed("torn");
  for (const off_t slot : {0, 4096}) {
    std::string text(512, '\0');
    const File file = File::open(copy + "/state", O_RDWR);
    file.read(static_cast<std::uint64_t>(slot), std::as_writable_bytes(std::span(text)));
    if (parse_slot(text)->state == StateFile::load(copy)->state()) {
      file.write(static_cast<std::uint64_t>(slot) + 60, as_bytes("torn"));
      break;
    }
  }
  const auto again = open(copy);
  EXPECT_EQ(recorded_, kFirst);
  EXPECT_EQ(dirty_bytes(*again), kPageSize);
}

TEST_F(OverlayTest, OverlayCrash_KilledWhileItWasMade_OpensEmpty) {
  open();
  std::filesystem::remove(directory() + "/state");
  std::filesystem::remove(directory() + "/2.bits");
  const auto again = open();
  EXPECT_EQ(dirty_bytes(*again), 0u);
}

// --- loss of power

TEST_F(OverlayTest, OverlayPowerLoss_Flushed_IsThere) {
  const auto overlay = open();
  overlay->write(0, filled(kPageSize, 1));
  overlay->freeze();
  overlay->write(kPageSize, filled(kPageSize, 2));
  overlay->flush();
  const auto again = open(copy_as_after_reboot("rebooted"));
  EXPECT_EQ(recorded_, kFirst);
  EXPECT_EQ(read(*again), read(*overlay));
  EXPECT_EQ(dirty_bytes(*again), 2 * kPageSize);
}

// The kernel may have written the bitmap back but not the data: such a page would read as zeros.
TEST_F(OverlayTest, OverlayPowerLoss_NotFlushed_CountsAsNeverWritten) {
  const auto overlay = open();
  overlay->write(0, filled(kPageSize, 1));
  overlay->flush();
  overlay->write(kPageSize, filled(kPageSize, 2));
  const std::string copy = copy_as_after_reboot("rebooted");
  const File data = File::open(copy + "/1.data", O_RDWR);
  data.zero(kPageSize, kPageSize);  // never reached the disk
  const auto again = open(copy);
  EXPECT_EQ(dirty_bytes(*again), kPageSize);
  auto model = read(*view_);
  std::fill_n(model.begin(), kPageSize, std::byte{1});
  EXPECT_EQ(read(*again), model);
  // A bit that does not count must not come back when the server is killed afterwards.
  again->write(10 * kPageSize, filled(1, 1));
  EXPECT_EQ(
      PageBitmap::load(File::open(copy + "/1.bits", O_RDWR), 1, kPages, PageBitmap::Trust::kLive)
          .count(),
      2u);
}

TEST_F(OverlayTest, OverlayPowerLoss_LayerNeverFlushedIsMissing_CountsAsEmpty) {
  const auto overlay = open();
  overlay->write(0, filled(kPageSize, 1));
  overlay->flush();
  const std::string copy = copy_as_after_reboot("rebooted");
  std::filesystem::remove(copy + "/2.data");
  EXPECT_EQ(dirty_bytes(*open(copy)), kPageSize);
}

TEST_F(OverlayTest, OverlayPowerLoss_FlushedLayerIsMissing_IsCorrupt) {
  const auto overlay = open();
  overlay->write(0, filled(kPageSize, 1));
  overlay->flush();
  const std::string copy = copy_as_after_reboot("rebooted");
  std::filesystem::remove(copy + "/1.data");
  std::filesystem::remove(copy + "/1.bits");
  EXPECT_THROW(open(copy), Corrupt);
}

// --- killed at random moments

// A process of our own that runs `body` until it is killed.
class Victim {
 public:
  explicit Victim(const std::function<void(int pipe)>& body) {
    int ends[2];
    if (pipe(ends) != 0) throw_errno("pipe", errno);
    pid_ = fork();
    if (pid_ == 0) {
      close(ends[0]);
      body(ends[1]);
      _exit(1);
    }
    close(ends[1]);
    pipe_ = File(ends[0], "pipe");
  }
  // Kills it and returns everything that it wrote to the pipe.
  std::string kill_and_read() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    std::string text;
    char buffer[4096];
    for (ssize_t got = 0; (got = ::read(pipe_.fd(), buffer, sizeof(buffer))) > 0;) {
      text.append(buffer, static_cast<std::size_t>(got));
    }
    return text;
  }

 private:
  pid_t pid_;
  File pipe_;
};

// The child writes the numbers 1, 2, ... each to a page that follows from the number, tells each
// one that was answered, and now and then freezes, unfreezes or folds. After the kill every page
// holds the last number that was answered for it, or the one that was in flight; never a mixture,
// never an older one.
TEST_F(OverlayTest, OverlayCrash_KilledAtRandomMoments_NoAcknowledgedWriteIsLost) {
  std::mt19937 random(7);
  const auto page_of = [](std::uint64_t n) { return n * 37 % kPages; };
  for (int round = 0; round < 25; ++round) {
    std::filesystem::remove_all(directory());
    Victim victim([&](int pipe) {
      const auto overlay = open();
      for (std::uint64_t n = 1;; ++n) {
        std::vector<std::uint64_t> numbers(kPageSize / sizeof(n), n);
        overlay->write(page_of(n) * kPageSize, std::as_bytes(std::span(numbers)));
        if (::write(pipe, &n, sizeof(n)) != sizeof(n)) _exit(1);
        if (n % 11 == 0) overlay->freeze();
        if (n % 11 == 7 && n > 11) overlay->unfreeze();
        if (n % 101 == 0) overlay->flush();
      }
    });
    std::this_thread::sleep_for(std::chrono::microseconds(20000 + random() % 60000));
    const std::string told = victim.kill_and_read();
    std::uint64_t last = 0;
    if (told.size() >= sizeof(last)) {
      std::memcpy(&last, told.data() + told.size() - sizeof(last), sizeof(last));
    }

    const auto overlay = open();
    const auto shown = read(*overlay);
    for (std::uint64_t page = 0; page < kPages; ++page) {
      std::uint64_t expected = 0;
      for (std::uint64_t n = last; n > 0 && n + kPages > last; --n) {
        if (page_of(n) == page) {
          expected = n;
          break;
        }
      }
      std::vector<std::uint64_t> numbers(kPageSize / sizeof(std::uint64_t));
      std::memcpy(numbers.data(), shown.data() + page * kPageSize, kPageSize);
      const bool in_flight = page_of(last + 1) == page && numbers[0] == last + 1;
      if (expected == 0 && !in_flight) {
        std::vector<std::byte> below(kPageSize);
        view_->read(page * kPageSize, below);
        ASSERT_EQ(std::memcmp(numbers.data(), below.data(), kPageSize), 0) << "page " << page;
        continue;
      }
      for (const std::uint64_t number : numbers) {
        ASSERT_EQ(number, in_flight ? last + 1 : expected) << "page " << page;
      }
    }
  }
}

// --- a full disk

// True if `body` returns true in a process of its own, which it may ruin.
bool holds_in_a_child(const std::function<bool()>& body) {
  const pid_t pid = fork();
  if (pid == 0) {
    bool held = false;
    try {
      held = body();
    } catch (const std::exception& error) {
      fprintf(stderr, "child: %s\n", error.what());
    }
    _exit(held ? 0 : 1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// From now on this process can write nothing past `limit` in a file: for it, the disk is full.
void limit_files(std::uint64_t limit) {
  signal(SIGXFSZ, SIG_IGN);
  const rlimit value{limit, RLIM_INFINITY};
  setrlimit(RLIMIT_FSIZE, &value);
}

TEST_F(OverlayTest, OverlayFull_NoSpaceForAPage_IsNoSpaceAndNothingIsHalfDirty) {
  EXPECT_TRUE(holds_in_a_child([&] {
    const auto overlay = open();
    overlay->write(0, filled(kPageSize, 1));
    const auto before = read(*overlay);
    limit_files(40 * kPageSize);
    try {
      overlay->write(38 * kPageSize, filled(5 * kPageSize, 2));
    } catch (const NoSpace&) {
      return read(*overlay) == before && dirty_bytes(*overlay) == kPageSize;
    }
    return false;
  }));
}

TEST_F(OverlayTest, OverlayFull_NoSpaceToFold_NothingIsLostAndTheNextFreezeFolds) {
  EXPECT_TRUE(holds_in_a_child([&] {
    const auto overlay = open();
    overlay->write(0, filled(kPageSize, 1));
    overlay->freeze();
    overlay->write(50 * kPageSize, filled(kPageSize, 2));
    const auto before = read(*overlay);
    limit_files(40 * kPageSize);
    try {
      overlay->unfreeze();
      return false;
    } catch (const NoSpace&) {
    }
    if (read(*overlay) != before || dirty_bytes(*overlay) != 2 * kPageSize ||
        overlay->status().error.empty()) {
      return false;
    }
    limit_files(RLIM_INFINITY);
    overlay->freeze();
    return read(*overlay) == before && overlay->status().frozen_bytes == 2 * kPageSize &&
           overlay->status().error.empty();
  }));
}

}  // namespace
}  // namespace zbig
