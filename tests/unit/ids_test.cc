// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/ids.h"

#include <random>

#include <gtest/gtest.h>

#include "zodb/error.h"

namespace zbig {
namespace {

Tid::Time at(int year, unsigned month, unsigned day, std::int64_t ns_of_day = 0) {
  return std::chrono::sys_days(std::chrono::year(year) / static_cast<int>(month) /
                               static_cast<int>(day)) +
         std::chrono::nanoseconds(ns_of_day);
}

constexpr std::int64_t kMinute = 60'000'000'000;

TEST(Oid, ParseHex_AcceptsWithAndWithoutPrefixOnly) {
  EXPECT_EQ(Oid::parse_hex("1a2b"), Oid{0x1a2b});
  EXPECT_EQ(Oid::parse_hex("0x1A2b"), Oid{0x1a2b});
  EXPECT_EQ(Oid::parse_hex("ffffffffffffffff"), Oid{~0ull});
  for (const char* bad : {"", "0x", "0x0x1", "12g", "-1", "+1", " 1", "11112222333344445"})
    EXPECT_FALSE(Oid::parse_hex(bad)) << bad;
  EXPECT_EQ(Oid{0x1a2b}.hex(), "0000000000001a2b");
}

TEST(Tid, ParseHex_WantsSixteenDigits) {
  EXPECT_EQ(Tid::parse_hex("03fdba7fffffffff"), Tid{0x03fdba7fffffffff});
  for (const char* bad : {"", "3fdba7fffffffff", "0x03fdba7fffffff", "03fdba7ffffffffg"})
    EXPECT_FALSE(Tid::parse_hex(bad)) << bad;
}

TEST(Tid, FromTime_KnownMinutes_HaveTheOriginalsNumbers) {
  // persistent.TimeStamp, as quoted in docs/formats/filestorage.md.
  EXPECT_EQ(Tid::from_time(at(2024, 12, 31, (23 * 60 + 59) * kMinute)).value >> 32, 0x03fdba7fu);
  EXPECT_EQ(Tid::from_time(at(2025, 1, 1)), Tid{0x03fdba8000000000});
  EXPECT_EQ(Tid::from_time(at(2024, 3, 1)), Tid{0x03f6eac000000000});
  EXPECT_EQ(Tid::from_time(at(1900, 1, 1)), Tid{0});
  // Half a minute is half of the low word.
  EXPECT_EQ(Tid::from_time(at(2025, 1, 1, kMinute / 2)), Tid{0x03fdba8080000000});
  EXPECT_EQ(Tid::from_time(at(2025, 1, 1, kMinute - 1)).value & 0xffffffff, 0xffffffffu);
}

TEST(Tid, FromTime_Before1900_IsInvalid) {
  EXPECT_THROW(Tid::from_time(at(1899, 12, 31)), Invalid);
}

TEST(Tid, ToTime_AndBack_IsTheSameTid) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 200'000; ++i) {
    const Tid tid{random() % (362ull * 535680) << 32 | (random() & 0xffffffff)};
    try {
      ASSERT_EQ(Tid::from_time(tid.to_time()), tid) << tid.hex();
    } catch (const Invalid&) {
      // A hole: day 29 to 31 of a shorter month.
      const auto day = (tid.value >> 32) % 44640 / 1440 + 1;
      ASSERT_GT(day, 28u) << tid.hex();
    }
  }
  for (const std::uint64_t low : {0x0ull, 0x1ull, 0xfffffffeull, 0xffffffffull}) {
    const Tid tid{0x03fdba8000000000 | low};
    EXPECT_EQ(Tid::from_time(tid.to_time()), tid) << tid.hex();
  }
}

TEST(Tid, FromTime_AndBack_IsLessThanATickOff) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 200'000; ++i) {
    const Tid::Time time(
        std::chrono::nanoseconds(random() % (200ull * 365 * 86400 * 1'000'000'000)));
    const auto off = (time - Tid::from_time(time).to_time()).count();
    ASSERT_GE(off, 0);
    ASSERT_LT(off, 14);
  }
}

TEST(Tid, ToTime_OfNoDate_IsInvalid) {
  EXPECT_THROW((Tid{0x03f6df8000000000}.to_time()), Invalid);  // 30 February 2024
  EXPECT_THROW(kMaxTid.to_time(), Invalid);
}

TEST(Tid, Iso_RoundsToMicrosecondsWithinTheMinute) {
  EXPECT_EQ(Tid::from_time(at(2024, 1, 2, (3 * 60 + 4) * kMinute + 5'123'456'000)).iso(),
            "2024-01-02T03:04:05.123456Z");
  EXPECT_EQ((Tid{0x03fdba7fffffffff}.iso()), "2024-12-31T23:59:59.999999Z");
  EXPECT_EQ((Tid{0x03f6df8000000000}.iso()), "03f6df8000000000");
}

TEST(Tid, LaterThan_StepsOverMinutesAndHolesOfTheCalendar) {
  const Tid past{1};
  EXPECT_EQ((Tid{5}.later_than(Tid{4})), (Tid{5}));
  EXPECT_EQ((Tid{5}.later_than(Tid{5})), (Tid{6}));
  EXPECT_EQ(past.later_than(Tid{0x03fdba7ffffffffe}), (Tid{0x03fdba7fffffffff}));
  EXPECT_EQ(past.later_than(Tid{0x03fdba7effffffff}), (Tid{0x03fdba7f00000000}));
  EXPECT_EQ(past.later_than(Tid{0x03fdba7fffffffff}), (Tid{0x03fdba8000000000}));
  EXPECT_EQ(past.later_than(Tid{0x03f6df7fffffffff}), (Tid{0x03f6eac000000000}));
  EXPECT_THROW(past.later_than(Tid{~0ull}), Failed);
}

}  // namespace
}  // namespace zbig
