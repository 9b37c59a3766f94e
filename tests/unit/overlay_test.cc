// SPDX-License-Identifier: BSD-3-Clause
#include "nbdkit-plugin/overlay.h"

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>
#include <random>
#include <thread>
#include <utility>

#include <gmock/gmock.h>

#include "overlay_fixture.h"

// What a device and its agent see of an overlay, while nothing crashes.

namespace zbig {
namespace {

std::size_t files_in(const std::string& directory) {
  std::size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory)) ++files;
  return files;
}

using testing::ElementsAre;
using testing::HasSubstr;

template <class E>
std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const E& error) {
    return error.what();
  }
  ADD_FAILURE() << "nothing of that class was thrown";
  return {};
}

TEST_F(OverlayTest, Overlay_NothingWritten_ShowsTheView) {
  const auto overlay = open();
  EXPECT_EQ(read(*overlay), read(*view_));
  EXPECT_EQ(overlay->status().dirty_bytes, 0u);
  EXPECT_EQ(overlay->status().at, kFirst);
  EXPECT_EQ(recorded_, std::nullopt);
}

TEST_F(OverlayTest, Overlay_PartOfAPageWritten_RestComesFromTheView) {
  const auto overlay = open();
  auto model = read(*view_);
  overlay->write(5000, filled(100, 7));
  std::fill_n(model.begin() + 5000, 100, std::byte{7});
  overlay->write(3 * kPageSize - 10, filled(2 * kPageSize, 8));
  std::fill_n(model.begin() + 3 * kPageSize - 10, 2 * kPageSize, std::byte{8});
  EXPECT_EQ(read(*overlay), model);
  EXPECT_EQ(overlay->status().dirty_bytes, 4 * kPageSize);
}

TEST_F(OverlayTest, Overlay_PartOfAPageZeroed_RestComesFromTheView) {
  const auto overlay = open();
  auto model = read(*view_);
  overlay->zero(4000, 3 * kPageSize);
  std::fill_n(model.begin() + 4000, 3 * kPageSize, std::byte{0});
  overlay->zero(40000, 3);
  std::fill_n(model.begin() + 40000, 3, std::byte{0});
  EXPECT_EQ(read(*overlay), model);
}

TEST_F(OverlayTest, Overlay_RandomWritesAndSteps_AgreesWithAModel) {
  auto overlay = open();
  auto shown = read(*view_);
  auto below = shown;  // what an abort goes back to
  std::optional<std::vector<std::byte>> frozen;
  std::mt19937 random(1);
  const auto below_n = [&](std::uint64_t n) { return random() % n; };
  Tid tid = kFirst;
  for (int step = 0; step < 1500; ++step) {
    const std::uint64_t offset = below_n(kSize);
    const std::uint64_t length = 1 + below_n(std::min<std::uint64_t>(kSize - offset, 20000));
    switch (below_n(12)) {
      case 0:
        overlay->zero(offset, length);
        std::fill_n(shown.begin() + static_cast<long>(offset), length, std::byte{0});
        break;
      case 1:
        if (frozen) break;
        overlay->freeze();
        frozen = shown;
        break;
      case 2:
        if (!frozen) break;
        if (below_n(2) == 0) {
          overlay->unfreeze();
        } else {
          // The frozen writes are the next state of the database.
          below = *frozen;
          overlay->committed(std::make_shared<BufferView>(Tid{++tid.value}, below), ExtentList{});
        }
        frozen.reset();
        break;
      case 3:
        if (frozen || below_n(3) != 0) break;
        overlay->abort(std::make_shared<BufferView>(tid, below), ExtentList{});
        shown = below;
        break;
      case 4:
        if (below_n(4) != 0) break;
        // Closed and opened again; a commit that was under way is folded back.
        overlay.reset();
        view_ = std::make_shared<BufferView>(tid, below);
        overlay = open();
        frozen.reset();
        break;
      case 5:
        if (below_n(8) == 0) overlay->flush();
        break;
      default: {
        std::vector<std::byte> bytes(length);
        for (std::byte& byte : bytes) byte = std::byte(random());
        overlay->write(offset, bytes);
        std::copy(bytes.begin(), bytes.end(), shown.begin() + static_cast<long>(offset));
      }
    }
    ASSERT_EQ(read(*overlay), shown) << "step " << step;
    if (frozen) {
      std::vector<std::byte> bytes(kSize);
      overlay->frozen()->read(0, bytes);
      ASSERT_EQ(bytes, *frozen) << "step " << step;
    }
  }
}

TEST_F(OverlayTest, Overlay_DataExtents_AreDirtyPagesAndDataOfTheView) {
  view_ = std::make_shared<BufferView>(kFirst, filled(10 * kPageSize, 1));
  const auto overlay = open();
  overlay->write(20 * kPageSize, filled(kPageSize, 9));
  overlay->zero(0, kPageSize);
  EXPECT_THAT(overlay->data_extents(0, kSize),
              ElementsAre(Extent{0, 10 * kPageSize}, Extent{20 * kPageSize, kPageSize}));
  EXPECT_THAT(overlay->data_extents(20 * kPageSize + 1, 10),
              ElementsAre(Extent{20 * kPageSize + 1, 10}));
}

TEST_F(OverlayTest, Overlay_DeviceLargerThanItsView_RestReadsAsZeros) {
  view_ = BufferView::of_pattern(kFirst, 5000, 0);
  const auto overlay = open();
  auto model = filled(kSize, 0);
  view_->read(0, std::span(model).first(5000));
  EXPECT_EQ(read(*overlay), model);
}

// --- freezing

TEST_F(OverlayTest, Overlay_WriteDuringFreeze_GoesToTheNextTransaction) {
  const auto overlay = open();
  overlay->write(0, filled(kPageSize, 1));
  overlay->freeze();
  overlay->write(0, filled(10, 2));
  overlay->write(9 * kPageSize, filled(kPageSize, 3));

  const auto frozen = overlay->frozen();
  EXPECT_THAT(frozen->dirty_extents(0, kSize), ElementsAre(Extent{0, kPageSize}));
  std::vector<std::byte> bytes(kPageSize);
  frozen->read(0, bytes);
  EXPECT_EQ(bytes, filled(kPageSize, 1));
  EXPECT_EQ(overlay->status().frozen_bytes, kPageSize);
  EXPECT_EQ(overlay->status().dirty_bytes, 2 * kPageSize);

  overlay->committed(next_view_, ExtentList{});
  EXPECT_EQ(overlay->status().dirty_bytes, 2 * kPageSize);
  EXPECT_EQ(overlay->status().frozen_bytes, 0u);
  auto model = read(*next_view_);
  std::fill_n(model.begin(), 10, std::byte{2});
  std::fill_n(model.begin() + 10, kPageSize - 10, std::byte{1});
  std::fill_n(model.begin() + 9 * kPageSize, kPageSize, std::byte{3});
  EXPECT_EQ(read(*overlay), model);
  EXPECT_THROW(frozen->read(0, bytes), Failed);
}

TEST_F(OverlayTest, Overlay_CommitFails_BothWritesAreDirtyAgain) {
  const auto overlay = open();
  overlay->write(0, filled(2 * kPageSize, 1));
  overlay->freeze();
  overlay->write(kPageSize, filled(2 * kPageSize, 2));
  const auto shown = read(*overlay);
  const auto frozen = overlay->frozen();
  overlay->unfreeze();
  EXPECT_EQ(read(*overlay), shown);
  EXPECT_EQ(overlay->status().dirty_bytes, 3 * kPageSize);
  std::vector<std::byte> bytes(1);
  EXPECT_THROW(frozen->read(0, bytes), Failed);
  overlay->unfreeze();  // nothing to do
  overlay->freeze();
  EXPECT_THAT(overlay->frozen()->dirty_extents(0, kSize), ElementsAre(Extent{0, 3 * kPageSize}));
}

TEST_F(OverlayTest, Overlay_StepOutOfTurn_IsBusy) {
  const auto overlay = open();
  EXPECT_THROW(overlay->committed(next_view_, ExtentList{}), Busy);
  EXPECT_THROW(overlay->frozen(), Busy);
  overlay->write(0, filled(1, 1));
  EXPECT_THROW(overlay->move_view(next_view_, ExtentList{}), Busy);
  overlay->freeze();
  EXPECT_THROW(overlay->freeze(), Busy);
  EXPECT_THROW(overlay->abort(next_view_, ExtentList{}), Busy);
  EXPECT_THROW(overlay->move_view(next_view_, ExtentList{}), Busy);
  overlay->committed(next_view_, std::nullopt);
  overlay->freeze();
  EXPECT_THROW(overlay->settled(), Busy);
  EXPECT_EQ(message_of<Busy>([&] { open(); }), "the overlay in " + directory() + " is in use");
}

TEST_F(OverlayTest, Overlay_Aborted_ShowsTheNewViewAndSaysWhatWasGivenUp) {
  const auto overlay = open();
  overlay->write(3 * kPageSize, filled(kPageSize, 1));
  EXPECT_THAT(overlay->abort(next_view_, ExtentList{}),
              ElementsAre(Extent{3 * kPageSize, kPageSize}));
  EXPECT_EQ(read(*overlay), read(*next_view_));
  EXPECT_EQ(overlay->status().dirty_bytes, 0u);
}

TEST_F(OverlayTest, Overlay_ManyCommits_LeaveNoFilesBehind) {
  const auto overlay = open();
  for (int i = 0; i < 20; ++i) {
    overlay->write(0, filled(kPageSize, 1));
    overlay->flush();
    overlay->freeze();
    if (i % 3 == 0) {
      overlay->write(0, filled(kPageSize, 2));
      overlay->unfreeze();
      overlay->freeze();
    }
    overlay->committed(next_view_, ExtentList{});
    overlay->tidy();
  }
  EXPECT_EQ(files_in(directory()), 7u);  // state, two layers of two files, the next one
}

// Nothing was promised, so nothing need be on the disk, and files go many at once.
TEST_F(OverlayTest, Overlay_ManyCommitsWithoutFlush_LeaveFewFilesBehind) {
  const auto overlay = open();
  for (int i = 0; i < 100; ++i) {
    overlay->write(0, filled(kPageSize, 1));
    overlay->freeze();
    overlay->committed(next_view_, ExtentList{});
    overlay->tidy();
    ASSERT_LE(files_in(directory()), 7u + 2 * 16);
  }
}

// O8: were the dropped layer still in the state on the disk, a loss of power after the next commit
// would make it dirty again. That its file is gone shows that the state was synced (O6).
TEST_F(OverlayTest, Freeze_AfterACommitOfFlushedWrites_SyncsTheState) {
  const auto overlay = open();
  const std::string dropped = directory() + "/1.data";
  overlay->write(0, filled(kPageSize, 1));
  overlay->flush();
  overlay->freeze();
  overlay->committed(next_view_, ExtentList{});
  ASSERT_TRUE(std::filesystem::exists(dropped));
  overlay->freeze();
  EXPECT_FALSE(std::filesystem::exists(dropped));
}

TEST_F(OverlayTest, Tidy_AfterLargeCommits_RemovesTheirFiles) {
  const auto overlay = open();
  for (std::uint64_t pages = 0; pages < 256; pages += kPages) {
    ASSERT_TRUE(std::filesystem::exists(directory() + "/1.data"));
    overlay->write(0, filled(kSize, 1));
    overlay->freeze();
    overlay->committed(next_view_, ExtentList{});
    overlay->tidy();
  }
  EXPECT_FALSE(std::filesystem::exists(directory() + "/1.data"));
}

TEST_F(OverlayTest, Overlay_Destroyed_LeavesNothing) {
  auto overlay = open();
  overlay->write(0, filled(kPageSize, 1));
  overlay->freeze();
  overlay->destroy();
  overlay.reset();
  EXPECT_FALSE(std::filesystem::exists(directory()));
}

// --- the base of the next commit (O7)

TEST_F(OverlayTest, Overlay_OthersChangedWhatWasWrittenDuringACommit_BaseStaysOld) {
  const auto overlay = open();
  overlay->write(0, filled(1, 1));
  overlay->freeze();
  overlay->write(5 * kPageSize, filled(1, 1));
  overlay->committed(next_view_, ExtentList{{4 * kPageSize, 3 * kPageSize}});
  EXPECT_EQ(overlay->status().at, kSecond);
  EXPECT_EQ(overlay->status().base, kFirst);
}

TEST_F(OverlayTest, Overlay_OthersChangedSomethingElse_BaseIsTheNewViewOnceSettled) {
  const auto overlay = open();
  overlay->freeze();
  overlay->write(5 * kPageSize, filled(1, 1));
  overlay->committed(next_view_, ExtentList{{0, 5 * kPageSize}, {6 * kPageSize, kPageSize}});
  EXPECT_EQ(overlay->status().base, kFirst);
  overlay->settled();
  EXPECT_EQ(overlay->status().base, kSecond);
}

TEST_F(OverlayTest, Overlay_WrittenToAStalePage_BaseStaysOldUntilCommitted) {
  const auto overlay = open();
  overlay->move_view(next_view_, ExtentList{{4 * kPageSize, 3 * kPageSize}});
  EXPECT_EQ(overlay->status().base, kFirst);
  EXPECT_FALSE(overlay->status().settled);
  overlay->write(6 * kPageSize, filled(1, 1));
  overlay->settled();
  overlay->settled();
  EXPECT_TRUE(overlay->status().settled);
  EXPECT_EQ(overlay->status().base, kFirst);
  overlay->freeze();
  EXPECT_EQ(overlay->status().base, kFirst);
  overlay->committed(next_view_, ExtentList{});
  EXPECT_EQ(overlay->status().base, kSecond);
}

TEST_F(OverlayTest, Overlay_WrittenElsewhereWhileStale_BaseIsTheNewViewOnceSettled) {
  const auto overlay = open();
  overlay->move_view(next_view_, ExtentList{{4 * kPageSize, 3 * kPageSize}});
  overlay->write(7 * kPageSize, filled(1, 1));
  EXPECT_EQ(overlay->status().base, kFirst);
  overlay->settled();
  EXPECT_EQ(overlay->status().base, kSecond);
}

TEST_F(OverlayTest, Overlay_NothingOfItChanged_IsSettledAtOnce) {
  const auto overlay = open();
  overlay->move_view(next_view_, ExtentList{});
  EXPECT_TRUE(overlay->status().settled);
  EXPECT_EQ(overlay->status().base, kSecond);
}

TEST_F(OverlayTest, Overlay_AbortedOverOthersChanges_BaseStaysOldUntilSettled) {
  const auto overlay = open();
  overlay->write(0, filled(1, 1));
  overlay->abort(next_view_, ExtentList{{0, kPageSize}});
  EXPECT_EQ(overlay->status().base, kFirst);
  overlay->settled();
  EXPECT_EQ(overlay->status().base, kSecond);
}

TEST_F(OverlayTest, Overlay_MovedBackAndForth_BaseIsTheOldest) {
  const auto overlay = open();
  overlay->move_view(next_view_, ExtentList{{0, kPageSize}});
  overlay->settled();
  overlay->move_view(view_, ExtentList{{0, kPageSize}});
  EXPECT_EQ(overlay->status().base, kFirst);
  overlay->move_view(next_view_, ExtentList{{0, kPageSize}});
  EXPECT_EQ(overlay->status().base, kFirst);
}

TEST_F(OverlayTest, Overlay_NobodyKnowsWhatOthersChanged_BaseStaysOldIfAnythingWasWritten) {
  const auto overlay = open();
  overlay->freeze();
  overlay->committed(next_view_, std::nullopt);
  overlay->settled();
  EXPECT_EQ(overlay->status().base, kSecond);
  overlay->freeze();
  overlay->write(0, filled(1, 1));
  overlay->committed(std::make_shared<BufferView>(Tid{0x3000}, filled(kSize, 1)), std::nullopt);
  overlay->settled();
  EXPECT_EQ(overlay->status().base, kSecond);
}

// --- damage: never a quiet loss

class OverlayDamageTest : public OverlayTest {
 protected:
  void SetUp() override {
    OverlayTest::SetUp();
    auto overlay = open();
    overlay->write(60 * kPageSize, filled(kPageSize, 1));
  }
  std::string file(const std::string& name) const { return directory() + "/" + name; }
  std::string corrupt() {
    return message_of<Corrupt>([&] { open(); });
  }
  void overwrite(const std::string& name, std::size_t offset, const std::string& bytes) {
    std::fstream stream(file(name), std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(static_cast<std::streamoff>(offset));
    stream << bytes;
  }
};

TEST_F(OverlayDamageTest, Overlay_StateMissing_IsCorrupt) {
  std::filesystem::remove(file("state"));
  EXPECT_THAT(corrupt(), HasSubstr("uncommitted writes, but the file 'state'"));
}

TEST_F(OverlayDamageTest, Overlay_BothSlotsDamaged_IsCorrupt) {
  overwrite("state", 40, "#");
  overwrite("state", 4096 + 40, "#");
  EXPECT_THAT(corrupt(), HasSubstr("both copies of the state are damaged"));
}

TEST_F(OverlayDamageTest, Overlay_StateCutShort_IsCorrupt) {
  std::filesystem::resize_file(file("state"), 100);
  EXPECT_THAT(corrupt(), HasSubstr("100 bytes"));
}

TEST_F(OverlayDamageTest, Overlay_BitmapOrDataMissing_IsCorrupt) {
  std::filesystem::rename(file("1.bits"), file("kept"));
  EXPECT_THAT(corrupt(), HasSubstr("1.bits: missing"));
  std::filesystem::rename(file("kept"), file("1.bits"));
  std::filesystem::remove(file("1.data"));
  EXPECT_THAT(corrupt(), HasSubstr("1.data: missing"));
  std::filesystem::remove(file("1.bits"));
  EXPECT_THAT(corrupt(), HasSubstr("layer 1 of the overlay"));
}

TEST_F(OverlayDamageTest, Overlay_BitmapOfAnotherLayer_IsCorrupt) {
  std::filesystem::copy_file(file("2.bits"), file("1.bits"),
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(corrupt(), HasSubstr("not the bitmap of layer 1"));
}

TEST_F(OverlayDamageTest, Overlay_DataCutShort_IsCorrupt) {
  std::filesystem::resize_file(file("1.data"), 60 * kPageSize);
  EXPECT_THAT(corrupt(), HasSubstr("page 60 was written"));
}

TEST_F(OverlayDamageTest, Overlay_MarkPastTheEnd_IsCorrupt) {
  overwrite("1.bits", 3 * 4096 - 8, "\x01");
  EXPECT_THAT(corrupt(), HasSubstr("is marked"));
}

TEST_F(OverlayDamageTest, Overlay_OpenedSmaller_IsInvalidAndOpensAtItsSizeAfterwards) {
  EXPECT_THROW(open(directory(), {.fixed = 10 * kPageSize, .least = 0}), Invalid);
  EXPECT_EQ(open(directory(), DeviceSize{})->size(), kSize);
}

TEST_F(OverlayDamageTest, Overlay_OpenedLarger_Grows) {
  const auto overlay = open(directory(), {.fixed = 100000 * kPageSize, .least = 0});
  EXPECT_EQ(overlay->size(), 100000 * kPageSize);
  EXPECT_EQ(read(*overlay, 60 * kPageSize, kPageSize), filled(kPageSize, 1));
  overlay->write(99999 * kPageSize, filled(kPageSize, 2));
  EXPECT_EQ(overlay->status().dirty_bytes, 2 * kPageSize);
}

// --- many threads

TEST_F(OverlayTest, Overlay_ManyWritersOfPartsOfOnePage_AllPrevail) {
  const auto overlay = open();
  constexpr unsigned kThreads = 8;
  constexpr std::uint64_t kPart = kPageSize / kThreads;
  {
    std::vector<std::jthread> threads;
    for (unsigned t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (unsigned round = 0; round < 50; ++round) {
          for (std::uint64_t page = 0; page < 16; ++page) {
            overlay->write(page * kPageSize + t * kPart, filled(kPart, 10 * t + round % 10));
          }
        }
      });
    }
    for (int i = 0; i < 20; ++i) {
      overlay->freeze();
      overlay->unfreeze();
    }
  }
  auto model = read(*view_);
  for (std::uint64_t i = 0; i < 16 * kPageSize; ++i) {
    model[i] = std::byte(10 * (i % kPageSize / kPart) + 9);
  }
  EXPECT_EQ(read(*overlay), model);
}

// A view that lets a test step in while a part of a page is being filled from it.
class SteppingView : public BufferView {
 public:
  SteppingView(Tid at, std::vector<std::byte> bytes, std::function<void()> step)
      : BufferView(at, std::move(bytes)), step_(std::move(step)) {}
  void read(std::uint64_t offset, std::span<std::byte> out) const override {
    BufferView::read(offset, out);
    if (auto step = std::exchange(step_, nullptr)) step();
  }

 private:
  mutable std::function<void()> step_;
};

TEST_F(OverlayTest, Overlay_ViewMovesWhileAPageIsFilled_RestComesFromTheNewView) {
  std::unique_ptr<Overlay> overlay;
  view_ = std::make_shared<SteppingView>(kFirst, filled(kSize, 1),
                                         [&] { overlay->move_view(next_view_, ExtentList{}); });
  overlay = open();
  overlay->write(100, filled(10, 9));
  auto model = read(*next_view_);
  std::fill_n(model.begin() + 100, 10, std::byte{9});
  EXPECT_EQ(read(*overlay), model);
  EXPECT_EQ(overlay->status().base, kSecond);
}

TEST_F(OverlayTest, Overlay_FrozenWhileAPageIsFilled_WriteGoesToTheTop) {
  std::unique_ptr<Overlay> overlay;
  view_ = std::make_shared<SteppingView>(kFirst, filled(kSize, 1), [&] { overlay->freeze(); });
  overlay = open();
  overlay->write(100, filled(10, 9));
  EXPECT_THAT(overlay->frozen()->dirty_extents(0, kSize), ElementsAre());
  EXPECT_EQ(overlay->status().dirty_bytes, kPageSize);
}

// A page is rewritten with ever higher numbers while commits take what was written: a reader never
// sees an older number than one that was acknowledged before it began.
TEST_F(OverlayTest, Overlay_CommitsWhileWriting_NothingIsLostOrGoesBack) {
  const auto overlay = open();
  std::atomic<std::uint32_t> acknowledged = 0;
  std::atomic<bool> stop = false;
  const auto value = [](std::span<const std::byte> page) {
    std::uint32_t number = 0;
    std::memcpy(&number, page.data(), sizeof(number));
    return number;
  };
  overlay->write(0, filled(kPageSize, 0));
  {
    std::jthread writer([&] {
      for (std::uint32_t n = 1; !stop; ++n) {
        std::vector<std::byte> bytes(100);
        std::memcpy(bytes.data(), &n, sizeof(n));
        overlay->write(0, bytes);  // a part of a page: the rest is filled from below
        acknowledged = n;
      }
    });
    std::jthread reader([&] {
      while (!stop) {
        const std::uint32_t before = acknowledged;
        EXPECT_GE(value(read(*overlay, 0, kPageSize)), before);
      }
    });
    for (std::uint64_t tid = 0x3000; tid < 0x3000 + 200; ++tid) {
      overlay->freeze();
      std::vector<std::byte> database(kSize);
      overlay->frozen()->read(0, database);
      overlay->committed(std::make_shared<BufferView>(Tid{tid}, database), ExtentList{});
    }
    stop = true;
  }
  EXPECT_EQ(value(read(*overlay, 0, kPageSize)), acknowledged);
}

TEST_F(OverlayTest, Overlay_FrozenWithATerabyteDirty_TakesNoTime) {
  constexpr std::uint64_t kTerabyte = std::uint64_t{1} << 40;
  const auto overlay = open(directory(), {.fixed = kTerabyte, .least = 0});
  overlay->zero(0, kTerabyte);
  const auto before = std::chrono::steady_clock::now();
  overlay->freeze();
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::milliseconds(10));
  EXPECT_THAT(overlay->frozen()->dirty_extents(0, kTerabyte), ElementsAre(Extent{0, kTerabyte}));
  overlay->write(0, filled(1, 1));
  overlay->unfreeze();
  EXPECT_LT(overlay->bytes_on_disk(), 200u << 20);
}

}  // namespace
}  // namespace zbig
