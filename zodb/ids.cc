// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/ids.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>

#include "zodb/error.h"

// The arithmetic of persistent.TimeStamp, in integers. Going by tid, a minute has 2^32 ticks of
// 13.97 ns, a month always 31 days; numbers of days that a month does not have are holes, which no
// clock gives and later_than steps over.

namespace zbig {
namespace {

using std::chrono::nanoseconds;

// A minute is 60e9 ns = 29296875 * 2^11 ns, and 2^32 ticks: with 2^11 taken out of both, the
// products fit in 64 bits.
constexpr std::uint64_t kMinuteFactor = 29'296'875;
constexpr int kTickShift = 32 - 11;
constexpr std::uint64_t kMinutesPerDay = std::uint64_t{24} * 60;
constexpr std::uint64_t kMinutesPerMonth = 31 * kMinutesPerDay;
constexpr std::uint64_t kMinutesPerYear = 12 * kMinutesPerMonth;
constexpr int kFirstYear = 1900;

// The high half of a tid, taken apart.
struct Calendar {
  std::chrono::year_month_day day;  // not ok() in a hole
  std::uint64_t minute = 0;         // of the day
};

Calendar calendar_of(std::uint64_t high) {
  const auto year = kFirstYear + static_cast<int>(high / kMinutesPerYear);
  const auto month = static_cast<unsigned>(high % kMinutesPerYear / kMinutesPerMonth) + 1;
  const auto day = static_cast<unsigned>(high % kMinutesPerMonth / kMinutesPerDay) + 1;
  return {std::chrono::year(year) / std::chrono::month(month) / std::chrono::day(day),
          high % kMinutesPerDay};
}

// Of the minute that the low half of a tid counts in ticks: the first nanosecond that has this
// tick.
std::uint64_t nanoseconds_of(std::uint64_t low) {
  return (low * kMinuteFactor + (1u << kTickShift) - 1) >> kTickShift;
}

std::string hex_of(std::uint64_t value) {
  std::array<char, 17> text{};
  std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(value));
  return text.data();
}

std::optional<std::uint64_t> parse_digits(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::string Oid::hex() const { return hex_of(value); }

std::string Oid::brief() const {
  const std::string digits = hex();
  return "0x" + digits.substr(std::min(digits.find_first_not_of('0'), digits.size() - 1));
}

std::optional<Oid> Oid::parse_hex(std::string_view text) {
  if (text.starts_with("0x") || text.starts_with("0X")) text.remove_prefix(2);
  if (text.empty() || text.size() > 16) return std::nullopt;
  const auto value = parse_digits(text);
  if (!value) return std::nullopt;
  return Oid{*value};
}

std::string Tid::hex() const { return hex_of(value); }

std::optional<Tid> Tid::parse_hex(std::string_view text) {
  if (text.size() != 16) return std::nullopt;
  const auto value = parse_digits(text);
  if (!value) return std::nullopt;
  return Tid{*value};
}

Tid Tid::from_time(Time time) {
  const auto minute = std::chrono::floor<std::chrono::minutes>(time);
  const auto day = std::chrono::floor<std::chrono::days>(minute);
  const std::chrono::year_month_day date(day);
  const int year = static_cast<int>(date.year()) - kFirstYear;
  if (year < 0) throw Invalid("no transaction id can be made of a time before 1900");

  const auto high = static_cast<std::uint64_t>(year) * kMinutesPerYear +
                    (static_cast<unsigned>(date.month()) - 1) * kMinutesPerMonth +
                    (static_cast<unsigned>(date.day()) - 1) * kMinutesPerDay +
                    static_cast<std::uint64_t>((minute - day).count());
  const auto ns = static_cast<std::uint64_t>(nanoseconds(time - minute).count());
  const std::uint64_t low = (ns << kTickShift) / kMinuteFactor;
  return Tid{high << 32 | low};
}

Tid::Time Tid::to_time() const {
  const Calendar calendar = calendar_of(value >> 32);
  if (!calendar.day.ok()) throw Invalid("transaction id " + hex() + " is no date");
  // 64 bits of nanoseconds end in the year 2262.
  if (calendar.day.year() > std::chrono::year(2261))
    throw Invalid("transaction id " + hex() + " is a date after the year 2261");
  return std::chrono::sys_days(calendar.day) +
         std::chrono::minutes(static_cast<long>(calendar.minute)) +
         nanoseconds(static_cast<long>(nanoseconds_of(value & 0xffffffff)));
}

std::string Tid::iso() const {
  const Calendar calendar = calendar_of(value >> 32);
  if (!calendar.day.ok()) return hex();
  // A tick is more than the nanosecond it began in: round, but never into the next minute.
  const std::uint64_t us =
      std::min<std::uint64_t>((nanoseconds_of(value & 0xffffffff) + 500) / 1000, 59'999'999);
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), "%04d-%02u-%02uT%02u:%02u:%02u.%06uZ",
                static_cast<int>(calendar.day.year()), static_cast<unsigned>(calendar.day.month()),
                static_cast<unsigned>(calendar.day.day()),
                static_cast<unsigned>(calendar.minute / 60),
                static_cast<unsigned>(calendar.minute % 60), static_cast<unsigned>(us / 1'000'000),
                static_cast<unsigned>(us % 1'000'000));
  return text.data();
}

Tid Tid::later_than(Tid other) const {
  if (*this > other) return *this;
  if ((other.value & 0xffffffff) != 0xffffffff) return Tid{other.value + 1};

  std::uint64_t high = (other.value >> 32) + 1;
  if (!calendar_of(high).day.ok()) high = (high / kMinutesPerMonth + 1) * kMinutesPerMonth;
  if (high > 0xffffffff) throw Failed("there is no transaction id after " + other.hex());
  return Tid{high << 32};
}

}  // namespace zbig
