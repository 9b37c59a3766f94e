// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <random>

#include <gtest/gtest.h>

#include "bigfile/changes.h"
#include "tests/support/python.h"
#include "tests/support/storage_lab.h"
#include "tests/support/volume_lab.h"

// Volumes over each backend: what is committed is what is read, by the storage that wrote it and by
// one that follows, and of what changed in between nothing is missing.

namespace zbig {
namespace {

struct Case {
  const char* backend;
  BlockFormat format;
};

class VolumeBackends : public ::testing::TestWithParam<Case> {};

std::string name_of(const ::testing::TestParamInfo<Case>& info) {
  const char* format = info.param.format == BlockFormat::kZBlk0   ? "ZBlk0"
                       : info.param.format == BlockFormat::kZBlk1 ? "ZBlk1"
                                                                  : "auto";
  return std::string(info.param.backend) + "_" + format;
}

INSTANTIATE_TEST_SUITE_P(
    Backends, VolumeBackends,
    ::testing::Values(Case{"file", BlockFormat::kZBlk0}, Case{"file", BlockFormat::kAuto},
                      Case{"py3", BlockFormat::kZBlk0}, Case{"py3", BlockFormat::kZBlk1},
                      Case{"py3", BlockFormat::kAuto}, Case{"py2", BlockFormat::kZBlk1}),
    name_of);

// What a view has not reads as zeros.
void read(const View& view, std::uint64_t offset, std::span<std::byte> out) {
  std::ranges::fill(out, std::byte{0});
  const std::uint64_t there = view.size() > offset ? view.size() - offset : 0;
  view.read(offset, out.first(std::min<std::size_t>(out.size(), there)));
}

TEST_P(VolumeBackends, RandomCommits_AreReadAndFollowed) {
  constexpr std::uint64_t kBlock = 16384;
  constexpr std::uint64_t kBlocks = 200;  // buckets split
  const auto backend = test::StorageLab::make(GetParam().backend);
  if (!backend) GTEST_SKIP() << test::Python::kMissing;
  const auto storage = backend->open(OpenMode::kCreate);
  test::VolumeLab lab(storage, "/A", kBlock);
  const auto follower = backend->open(OpenMode::kRead);
  Tid before = follower->sync();
  std::mt19937 random(7);
  for (int round = 0; round < 25; ++round) {
    const int writes = round == 5 ? 120 : 1 + static_cast<int>(random() % 8);
    for (int i = 0; i < writes; ++i) {
      const std::uint64_t offset = random() % (kBlocks * kBlock);
      const std::uint64_t length = 1 + random() % (random() % 4 == 0 ? 2 * kBlock : 5000);
      if (random() % 5 == 0) {
        lab.zero(offset, length);
      } else {
        lab.write(offset, test::noise(random(), length));
      }
    }
    lab.commit(GetParam().format);
    ASSERT_EQ(lab.differs(), "");

    const Tid now = follower->sync();
    ASSERT_EQ(now, lab.at());
    const auto old_view = View::open(follower, find_volume(*follower, "/A", before), before);
    const auto view = View::open(follower, find_volume(*follower, "/A", now), now);
    ASSERT_EQ(view->size(), lab.view().size());
    const Changes changes = changed_extents(*follower, view->volume(), before, now,
                                            follower->changed_oids(before, now));
    Bytes followed(std::max(old_view->size(), view->size()));
    Bytes whole(followed.size());
    read(*old_view, 0, followed);
    for (const Extent& extent : changes.extents) {
      read(*view, extent.offset, std::span(followed).subspan(extent.offset, extent.length));
    }
    read(lab.view(), 0, whole);
    ASSERT_TRUE(followed == whole) << "round " << round;
    before = now;
  }
}

}  // namespace
}  // namespace zbig
