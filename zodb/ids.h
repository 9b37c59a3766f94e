// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

// Object and transaction identifiers.
//
// Both are 8 bytes, big-endian on disk and on the wire; comparing the bytes is comparing the
// numbers. An oid names an object for ever. A tid names a transaction, is the serial (revision) of
// every object that the transaction stored, and encodes the time of the commit.

namespace zbig {

struct Oid {
  std::uint64_t value = 0;
  auto operator<=>(const Oid&) const = default;

  // 16 lower-case hex digits.
  std::string hex() const;
  // As sentences name it: "0x2a".
  std::string brief() const;
  // 1 to 16 hex digits, with or without 0x; nothing otherwise.
  static std::optional<Oid> parse_hex(std::string_view text);
};

inline constexpr Oid kRootOid{0};

// Time format (persistent.TimeStamp): the high 32 bits count minutes since 1900 in a calendar whose
// months all have 31 days; the low 32 bits are the second within the minute in units of 60 s /
// 2^32.
struct Tid {
  std::uint64_t value = 0;
  auto operator<=>(const Tid&) const = default;

  using Time = std::chrono::sys_time<std::chrono::nanoseconds>;

  std::string hex() const;
  static std::optional<Tid> parse_hex(std::string_view text);  // exactly 16 hex digits

  // The tid that ZODB gives to a commit at `time` (truncated, as the original does).
  static Tid from_time(Time time);
  // The time that a tid encodes, rounded so that from_time(to_time()) is the same tid. Throws
  // Invalid for a number whose high half is no date (a tid that was not made from a clock).
  Time to_time() const;
  // "2024-01-02T03:04:05.123456Z"; the hex digits where the tid is no date.
  std::string iso() const;

  // This tid if it is later than `other`, else the next one after `other` (TimeStamp.laterThan).
  Tid later_than(Tid other) const;
};

inline constexpr Tid kNoTid{0};
inline constexpr Tid kMaxTid{0x7fffffffffffffff};  // "the head": above any tid of a clock

}  // namespace zbig

template <>
struct std::hash<zbig::Oid> {
  std::size_t operator()(zbig::Oid oid) const noexcept {
    return std::hash<std::uint64_t>()(oid.value * 0x9e3779b97f4a7c15);
  }
};
