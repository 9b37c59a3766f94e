// SPDX-License-Identifier: BSD-3-Clause
#include <array>
#include <atomic>
#include <filesystem>
#include <thread>
#include <utility>

#include <gmock/gmock.h>

#include "overlay_fixture.h"
#include "zodb/error.h"

// An overlay whose view becomes larger, or smaller, under it (O9).

namespace zbig {
namespace {

class OverlayGrowthTest : public OverlayTest {
 protected:
  static constexpr std::uint64_t kLarger = 40000 * kPageSize;  // more than a block of the bitmap

  std::unique_ptr<Overlay> open_growing(const std::string& directory) {
    return open(directory, DeviceSize{});
  }
  void SetUp() override {
    OverlayTest::SetUp();
    next_view_ = BufferView::of_pattern(kSecond, kLarger - 100, 100);
  }
  static std::vector<std::byte> page_of(const View& view, std::uint64_t page) {
    std::vector<std::byte> out(kPageSize);
    read_padded(view, page * kPageSize, out);
    return out;
  }
};

TEST_F(OverlayGrowthTest, MoveView_ToALargerOne_ShowsItAllAndTakesWritesThere) {
  const auto overlay = open_growing(directory());
  EXPECT_EQ(overlay->size(), kSize);
  overlay->move_view(next_view_, ExtentList{{kSize, kLarger - kSize}});
  EXPECT_EQ(overlay->size(), kLarger);
  EXPECT_TRUE(overlay->status().settled);  // nobody had a copy of what was not there
  EXPECT_EQ(read(*overlay, kLarger - kPageSize, kPageSize), page_of(*next_view_, 39999));
  overlay->write(kLarger - 50, filled(50, 1));
  view_ = next_view_;
  const std::string killed = copy_as_killed("killed");
  overlay->flush();
  for (const std::string& copy : {killed, copy_as_after_reboot("rebooted")}) {
    const auto again = open_growing(copy);
    EXPECT_EQ(again->size(), kLarger);
    EXPECT_EQ(read(*again, kLarger - 50, 50), filled(50, 1));
  }
}

TEST_F(OverlayGrowthTest, MoveView_ToASmallerOne_KeepsTheSize) {
  view_ = next_view_;
  const auto overlay = open_growing(directory());
  overlay->move_view(BufferView::of_pattern(Tid{0x3000}, kPageSize, 1), ExtentList{});
  EXPECT_EQ(overlay->size(), kLarger);
  EXPECT_EQ(read(*overlay, kSize, kPageSize), filled(kPageSize, 0));
}

TEST_F(OverlayGrowthTest, MoveView_OfASizeThatWasAskedFor_KeepsIt) {
  const auto overlay = open();
  overlay->move_view(next_view_, ExtentList{{kSize, kLarger - kSize}});
  EXPECT_EQ(overlay->size(), kSize);
}

TEST_F(OverlayGrowthTest, MoveView_Dirty_StaysAsItIs) {
  const auto overlay = open_growing(directory());
  overlay->write(0, filled(1, 1));
  EXPECT_THROW(overlay->move_view(next_view_, ExtentList{}), Busy);
  EXPECT_EQ(overlay->size(), kSize);
}

TEST_F(OverlayGrowthTest, Committed_WhileOthersMadeItLarger_KeepsWhatWasWrittenMeanwhile) {
  const auto overlay = open_growing(directory());
  overlay->write(0, filled(10, 1));
  overlay->freeze();
  overlay->write(5 * kPageSize, filled(kPageSize, 2));
  overlay->committed(next_view_, ExtentList{{kSize, kLarger - kSize}});
  EXPECT_EQ(overlay->size(), kLarger);
  EXPECT_EQ(read(*overlay, 5 * kPageSize, kPageSize), filled(kPageSize, 2));
  overlay->write(kLarger - kPageSize, filled(kPageSize, 3));
  overlay->flush();
  EXPECT_EQ(overlay->status().dirty_bytes, 2 * kPageSize);
  view_ = next_view_;
  const auto again = open_growing(copy_as_after_reboot("rebooted"));
  EXPECT_EQ(again->status().dirty_bytes, 2 * kPageSize);
  EXPECT_EQ(read(*again, 5 * kPageSize, kPageSize), filled(kPageSize, 2));
  EXPECT_EQ(read(*again, kLarger - kPageSize, kPageSize), filled(kPageSize, 3));
}

TEST_F(OverlayGrowthTest, Abort_WhileOthersMadeItLarger_ShowsItAll) {
  const auto overlay = open_growing(directory());
  overlay->write(0, filled(10, 1));
  overlay->abort(next_view_, ExtentList{{kSize, kLarger - kSize}});
  EXPECT_EQ(overlay->size(), kLarger);
  EXPECT_EQ(read(*overlay, kLarger - kPageSize, kPageSize), page_of(*next_view_, 39999));
}

// A server that was started again, when the volume had become smaller meanwhile.
TEST_F(OverlayGrowthTest, Open_OfAnEarlierSize_IsNotSmaller) {
  EXPECT_EQ(open(directory(), {.fixed = 0, .least = kLarger})->size(), kLarger);
  EXPECT_EQ(open_growing(directory())->size(), kSize);
}

// The state is written before the files grow.
TEST_F(OverlayGrowthTest, Open_KilledWhileItGrew_TakesFilesOfEitherSize) {
  const auto overlay = open_growing(directory());
  overlay->write(0, filled(10, 1));
  const std::string copy = copy_as_killed("killed");
  {
    std::optional<StateFile> file = StateFile::load(copy);
    OverlayState state = file->state();
    state.size = kLarger;
    file->save(state);
    std::filesystem::resize_file(copy + "/" + std::to_string(state.bottom.number) + ".data",
                                 kLarger);
  }
  const auto again = open_growing(copy);
  EXPECT_EQ(again->size(), kLarger);
  EXPECT_EQ(read(*again, 0, 10), filled(10, 1));
}

TEST_F(OverlayGrowthTest, MoveView_ManyWritersWhileItGrows_NothingIsLost) {
  const auto overlay = open_growing(directory());
  constexpr unsigned kSteps = 12;
  std::atomic<bool> stop = false;
  std::vector<std::jthread> writers;
  std::array<std::atomic<unsigned>, 4> last{};
  for (unsigned w = 0; w < last.size(); ++w) {
    writers.emplace_back([&, w] {
      for (unsigned i = 1; !stop; i = i % 250 + 1) {
        overlay->write(w * 9 * kPageSize + 5, filled(kPageSize, i));
        if (i % 50 == 0) overlay->flush();
        last[w] = i;
      }
    });
  }
  std::uint64_t pages = kPages;
  for (unsigned i = 1; i <= kSteps; ++i) {
    pages += 1000;
    overlay->freeze();
    overlay->committed(BufferView::of_pattern(Tid{0x2000 + i}, pages * kPageSize, 7), ExtentList{});
    EXPECT_EQ(overlay->size(), pages * kPageSize);
  }
  // Each begins to write once more, so that its pages are no view's.
  for (auto& value : last) {
    for (int i = 0; i < 2; ++i) {
      for (const unsigned before = value; value == before;) std::this_thread::yield();
    }
  }
  stop = true;
  writers.clear();
  for (unsigned w = 0; w < last.size(); ++w) {
    EXPECT_EQ(read(*overlay, w * 9 * kPageSize + 5, kPageSize), filled(kPageSize, last[w])) << w;
  }
}

}  // namespace
}  // namespace zbig
