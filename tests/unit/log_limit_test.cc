// SPDX-License-Identifier: BSD-3-Clause
#include "nbdkit-plugin/log_limit.h"

#include <gtest/gtest.h>

namespace zbig {
namespace {

TEST(LogLimit, FailuresOfOneSecond_OnlyTheFirstAreLoggedAndTheRestCounted) {
  LogLimit limit;
  const auto start = LogLimit::Clock::now();
  for (unsigned i = 0; i < LogLimit::kPerSecond; ++i) {
    EXPECT_EQ(limit.admit(start), std::optional<std::uint64_t>(0));
  }
  for (unsigned i = 0; i < 1000; ++i) {
    EXPECT_FALSE(limit.admit(start + std::chrono::milliseconds(999)));
  }
  EXPECT_EQ(limit.admit(start + std::chrono::seconds(1)), std::optional<std::uint64_t>(1000));
  EXPECT_EQ(limit.admit(start + std::chrono::seconds(1)), std::optional<std::uint64_t>(0));
}

}  // namespace
}  // namespace zbig
