// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/revision_cache.h"

#include <map>

#include <gtest/gtest.h>

namespace zbig {
namespace {

using Cache = RevisionCache<std::uint64_t>;

TEST(RevisionCacheTest, Find_WithinSerialAndHorizonOnly) {
  Cache cache(1 << 20, Tid{10});
  EXPECT_TRUE(cache.insert(Oid{1}, Tid{5}, Tid{10}, 77, 0));
  EXPECT_EQ(cache.find(Oid{1}, Tid{10}), 77u);
  EXPECT_EQ(cache.find(Oid{1}, Tid{5}), 77u);
  EXPECT_FALSE(cache.find(Oid{1}, Tid{4}));
  EXPECT_FALSE(cache.find(Oid{1}, Tid{11}));
  EXPECT_FALSE(cache.find(Oid{2}, Tid{10}));
}

TEST(RevisionCacheTest, Advance_DropsTheChangedAndKeepsTheRest) {
  Cache cache(1 << 20, Tid{10});
  for (std::uint64_t i = 0; i < 100; ++i) cache.insert(Oid{i}, Tid{5}, Tid{10}, i, 0);
  const Oid changed[] = {Oid{3}, Oid{50}, Oid{1000}};
  cache.advance(Tid{20}, changed);
  for (std::uint64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(cache.find(Oid{i}, Tid{20}).has_value(), i != 3 && i != 50) << i;
  }
  EXPECT_FALSE(cache.insert(Oid{3}, Tid{5}, Tid{10}, 3, 0)) << "from a view behind";
  EXPECT_FALSE(cache.find(Oid{3}, Tid{20}));
  EXPECT_TRUE(cache.insert(Oid{3}, Tid{15}, Tid{20}, 33, 0));
  EXPECT_EQ(cache.find(Oid{3}, Tid{20}), 33u);
  EXPECT_FALSE(cache.find(Oid{3}, Tid{10})) << "it is newer than that";
  EXPECT_EQ(cache.find(Oid{4}, Tid{10}), 4u) << "a view behind goes on with what is still true";
}

TEST(RevisionCacheTest, Full_LeastRecentlyUsedGoes) {
  Cache cache(100'000, Tid{1}, 1);
  std::uint64_t n = 0;
  while (cache.bytes() + 1100 < 100'000) cache.insert(Oid{n++}, Tid{1}, Tid{1}, n, 1000);
  EXPECT_TRUE(cache.find(Oid{0}, Tid{1}));  // now the most recently used
  for (std::uint64_t i = 0; i < 10; ++i) cache.insert(Oid{10'000 + i}, Tid{1}, Tid{1}, i, 1000);
  EXPECT_LE(cache.bytes(), 100'000u);
  EXPECT_TRUE(cache.find(Oid{0}, Tid{1}));
  EXPECT_FALSE(cache.find(Oid{1}, Tid{1}));
  EXPECT_TRUE(cache.find(Oid{10'009}, Tid{1}));
  EXPECT_FALSE(cache.insert(Oid{5}, Tid{1}, Tid{1}, 0, 200'000)) << "larger than all";
}

TEST(RevisionCacheTest, RandomUse_AgreesWithAMap) {
  Cache cache(1 << 16, Tid{1});
  std::map<std::uint64_t, std::uint64_t> model;  // what was inserted last
  std::uint64_t state = 1;
  std::uint64_t now = 1;
  for (int i = 0; i < 200'000; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const std::uint64_t oid = (state >> 33) % 3000;
    switch ((state >> 60) % 4) {
      case 0: {
        const Oid changed[] = {Oid{oid}};
        cache.advance(Tid{++now}, changed);
        model.erase(oid);
        break;
      }
      case 1:
        if (!model.contains(oid)) model[oid] = state;
        cache.insert(Oid{oid}, Tid{1}, Tid{now}, model[oid], 0);
        break;
      default:
        if (const auto found = cache.find(Oid{oid}, Tid{now})) {
          ASSERT_TRUE(model.contains(oid));
          ASSERT_EQ(*found, model[oid]);
        }
    }
    ASSERT_LE(cache.bytes(), std::size_t{1} << 16);
  }
}

}  // namespace
}  // namespace zbig
