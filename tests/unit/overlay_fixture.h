// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "nbdkit-plugin/overlay.h"
#include "nbdkit-plugin/padded_view.h"
#include "tests/support/buffer_view.h"

// What the tests of the overlay share: two views, and a directory that goes away.

namespace zbig {

class OverlayTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kPages = 64;
  static constexpr std::uint64_t kSize = kPages * kPageSize;
  static constexpr Tid kFirst{0x1000};
  static constexpr Tid kSecond{0x2000};

  void SetUp() override {
    std::string path = (std::filesystem::temp_directory_path() / "zbig-overlay-XXXXXX").string();
    ASSERT_NE(mkdtemp(path.data()), nullptr);
    root_ = path;
    view_ = BufferView::of_pattern(kFirst, kSize, 0);
    next_view_ = BufferView::of_pattern(kSecond, kSize, 100);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  std::string directory() const { return (root_ / "overlay").string(); }
  std::unique_ptr<Overlay> open(const std::string& directory,
                                DeviceSize size = {.fixed = kSize, .least = 0}) {
    return Overlay::open(directory, size, [&](std::optional<Overlay::Recorded> recorded) {
      recorded_ = recorded && recorded->dirty ? std::optional(recorded->view) : std::nullopt;
      return view_;
    });
  }
  std::unique_ptr<Overlay> open() { return open(directory()); }

  static std::vector<std::byte> filled(std::size_t length, unsigned value) {
    return std::vector<std::byte>(length, std::byte(value));
  }
  static std::vector<std::byte> read(const Overlay& overlay, std::uint64_t offset = 0,
                                     std::uint64_t length = kSize) {
    std::vector<std::byte> out(length);
    overlay.read(offset, out);
    return out;
  }
  static std::vector<std::byte> read(const View& view) {
    std::vector<std::byte> out(kSize);
    view.read(0, out);
    return out;
  }
  // What kill -9 leaves: the files as they are at this moment, without a last flush.
  std::string copy_as_killed(const std::string& name) {
    const std::filesystem::path to = root_ / name;
    std::filesystem::remove_all(to);
    std::filesystem::copy(directory(), to);
    return to.string();
  }
  // What a loss of power leaves at worst: the same, in another boot.
  std::string copy_as_after_reboot(const std::string& name) {
    const std::string to = copy_as_killed(name);
    std::optional<StateFile> file = StateFile::load(to);
    OverlayState state = file->state();
    state.boot_id = "another boot";
    file->save(state);
    return to;
  }

  std::filesystem::path root_;
  std::shared_ptr<const View> view_;
  std::shared_ptr<const View> next_view_;
  std::optional<Tid> recorded_;
};

}  // namespace zbig
