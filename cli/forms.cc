// SPDX-License-Identifier: BSD-3-Clause

#include "cli/forms.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <limits>

#include "cli/verb.h"

namespace zbig {
namespace {

using std::chrono::nanoseconds;

constexpr std::string_view kUnits = "KMGTPE";
constexpr std::size_t kMostDimensions = 32;
constexpr const char* kWhenForms =
    "WHEN is head, a tid (16 hex digits), a time (2024-01-02T03:04:05Z) or an age (2h, 3d)";

std::string quoted(std::string_view text) { return "'" + std::string(text) + "'"; }

// The number that all of `text` is, or nothing.
std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Takes numbers and fixed characters off the front of a text.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  bool at_end() const { return rest_.empty(); }
  bool take(char c) {
    if (rest_.empty() || rest_.front() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  // Exactly `digits` decimal digits.
  std::optional<int> digits(std::size_t digits) {
    if (rest_.size() < digits) return std::nullopt;
    const std::string_view text = rest_.substr(0, digits);
    if (text.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
    rest_.remove_prefix(digits);
    return static_cast<int>(*number(text));
  }
  // The digits that follow, at most 9 of them: a fraction of a second.
  std::string_view run_of_digits() {
    const std::size_t end = std::min(rest_.find_first_not_of("0123456789"), rest_.size());
    const std::string_view text = rest_.substr(0, end);
    rest_.remove_prefix(end);
    return text;
  }

 private:
  std::string_view rest_;
};

// A time, and how long the last digit given lasts (nothing for a time without a fraction).
struct Moment {
  Tid::Time start;
  nanoseconds last_digit{0};
};

// After the seconds: ".678" in nanoseconds.
bool scan_fraction(Scanner& scan, Moment& moment) {
  const std::string_view digits = scan.run_of_digits();
  if (digits.empty() || digits.size() > 9) return false;
  nanoseconds unit{1'000'000'000};
  for (std::size_t i = 0; i < digits.size(); ++i) unit /= 10;
  moment.start += unit * static_cast<std::int64_t>(*number(digits));
  moment.last_digit = unit;
  return true;
}

// The zone at the end: nothing, "Z", "+01", "+01:00" or "+0100".
bool scan_zone(Scanner& scan, Moment& moment) {
  if (scan.at_end() || scan.take('Z')) return scan.at_end();
  const bool east = scan.take('+');
  if (!east && !scan.take('-')) return false;
  const auto hours = scan.digits(2);
  scan.take(':');
  const auto minutes = scan.at_end() ? std::optional(0) : scan.digits(2);
  if (!hours || !minutes || *hours > 23 || *minutes > 59 || !scan.at_end()) return false;
  const auto offset = std::chrono::hours(*hours) + std::chrono::minutes(*minutes);
  moment.start += east ? -offset : offset;
  return true;
}

std::optional<Moment> parse_time(std::string_view text) {
  namespace chrono = std::chrono;
  Scanner scan(text);
  const auto year = scan.digits(4);
  if (!year || !scan.take('-')) return std::nullopt;
  const auto month = scan.digits(2);
  if (!month || !scan.take('-')) return std::nullopt;
  const auto day = scan.digits(2);
  if (!day) return std::nullopt;
  const chrono::year_month_day date{chrono::year(*year),
                                    chrono::month(static_cast<unsigned>(*month)),
                                    chrono::day(static_cast<unsigned>(*day))};
  // Years that nanoseconds in 64 bits hold.
  if (!date.ok() || *year < 1900 || *year > 2261) return std::nullopt;
  Moment moment{chrono::sys_days(date), {}};
  if (scan.at_end()) return moment;

  if (!scan.take('T') && !scan.take(' ')) return std::nullopt;
  const auto hour = scan.digits(2);
  if (!hour || *hour > 23 || !scan.take(':')) return std::nullopt;
  const auto minute = scan.digits(2);
  if (!minute || *minute > 59) return std::nullopt;
  moment.start += chrono::hours(*hour) + chrono::minutes(*minute);
  if (scan.take(':')) {
    const auto second = scan.digits(2);
    if (!second || *second > 59) return std::nullopt;
    moment.start += chrono::seconds(*second);
    if (scan.take('.') && !scan_fraction(scan, moment)) return std::nullopt;
  }
  if (!scan_zone(scan, moment)) return std::nullopt;
  return moment;
}

std::optional<Moment> parse_age(std::string_view text) {
  namespace chrono = std::chrono;
  if (text.empty()) return std::nullopt;
  const auto count = number(text.substr(0, text.size() - 1));
  const std::string_view letters = "smhdw";
  constexpr std::array<std::uint64_t, 5> kSeconds{1, 60, 3600, 86400, 604800};
  const std::size_t unit = letters.find(text.back());
  if (!count || unit == std::string_view::npos) return std::nullopt;
  // Older than the calendar of tids is as good as its beginning.
  constexpr std::uint64_t kLongest = 120ull * 366 * 86400;
  const std::uint64_t age = *count > kLongest / kSeconds[unit] ? kLongest : *count * kSeconds[unit];
  const auto now = chrono::time_point_cast<nanoseconds>(chrono::system_clock::now());
  return Moment{now - chrono::seconds(age), {}};
}

Moment moment_of(std::string_view text) {
  if (const auto moment = parse_time(text)) return *moment;
  if (const auto moment = parse_age(text)) return *moment;
  throw AdvisedError(ErrorCode::kInvalid, quoted(text) + " is no moment", kWhenForms);
}

}  // namespace

std::uint64_t parse_size(std::string_view text, std::string_view what) {
  std::string_view digits = text;
  int shift = 0;
  if (!digits.empty()) {
    const auto upper = static_cast<char>(digits.back() & ~0x20);
    if (const std::size_t unit = kUnits.find(upper); unit != std::string_view::npos) {
      shift = 10 * static_cast<int>(unit + 1);
      digits.remove_suffix(1);
    }
  }
  const auto value = number(digits);
  if (!value) {
    throw AdvisedError(ErrorCode::kInvalid, std::string(what) + ": " + quoted(text) + " is no size",
                       "a size is a number of bytes, or a number with K, M, G, T, P or E: 4K, 2M");
  }
  // Offsets are signed 64-bit numbers to the kernel, NBD and files.
  if (*value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) >> shift) {
    throw Invalid(std::string(what) + ": " + std::string(text) + " is beyond 2^63 - 1 bytes");
  }
  return *value << shift;
}

std::uint64_t parse_count(std::string_view text, std::string_view what) {
  const auto value = number(text);
  if (!value) throw Invalid(std::string(what) + ": " + quoted(text) + " is no number");
  return *value;
}

std::vector<std::uint64_t> parse_shape(std::string_view text) {
  std::vector<std::uint64_t> shape;
  for (std::size_t start = 0; start <= text.size();) {
    const std::size_t end = std::min(text.find(',', start), text.size());
    const auto extent = number(text.substr(start, end - start));
    if (!extent || shape.size() == kMostDimensions) {
      throw AdvisedError(ErrorCode::kInvalid, "--shape: " + quoted(text) + " is no shape",
                         "a shape is 1 to 32 numbers with commas between: 1000,1000");
    }
    shape.push_back(*extent);
    start = end + 1;
  }
  return shape;
}

Tid parse_when(std::string_view text, const Storage& storage) {
  const Tid last = storage.last_tid();
  if (text == "head") return last;
  if (const auto tid = Tid::parse_hex(text)) {
    if (*tid > last) {
      throw NotFound("there is no transaction " + tid->hex() + " in " + storage.url() +
                     ": the newest one is " + last.hex());
    }
    return *tid;
  }
  const Moment moment = moment_of(text);
  Tid::Time until = moment.start;
  if (moment.last_digit > nanoseconds(0)) until += moment.last_digit - nanoseconds(1);
  return std::min(Tid::from_time(until), last);
}

Tid parse_since(std::string_view text, const Storage& storage) {
  if (text == "head") return storage.last_tid();
  if (const auto tid = Tid::parse_hex(text)) return *tid;
  const Moment moment = moment_of(text);
  return Tid::from_time(moment.start - moment.last_digit);
}

std::string human_size(std::uint64_t bytes) {
  if (bytes < 1024) return std::to_string(bytes) + " B";
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (value /= 1024; value >= 1023.95 && unit + 1 < kUnits.size(); value /= 1024) ++unit;
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f %ciB", value, kUnits[unit]);
  return text.data();
}

}  // namespace zbig
