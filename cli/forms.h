// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "zodb/storage.h"

// The forms in which people write sizes, moments and shapes. All of them throw Invalid, naming what
// was typed and what is allowed.

namespace zbig {

// SIZE: bytes, or a number with one of K M G T P E (powers of 1024): "4096", "4K", "2M".
// `what` names it in the message ("--size").
std::uint64_t parse_size(std::string_view text, std::string_view what);

// "1000,1000" -> {1000, 1000}. At most 32 dimensions, as numpy.
std::vector<std::uint64_t> parse_shape(std::string_view text);

// A plain number that is not negative.
std::uint64_t parse_count(std::string_view text, std::string_view what);

// WHEN, for a person who points at a state of the database:
//   head                       the newest transaction
//   03f0a1b2c3d4e5f6           the state as of that tid
//   2024-01-02T03:04:05.678Z   an ISO 8601 time; the date alone, minutes, a space for the T and an
//                              offset like +01:00 are understood; UTC if nothing is said
//   45s 10m 2h 3d 2w           that long ago
// A time names the newest state at that time. A time with a fraction of a second stands for all
// that is rounded to it, up or down, so that a time which zbig printed names its transaction.
// Throws NotFound for a tid above the newest one.
Tid parse_when(std::string_view text, const Storage& storage);

// WHEN as the start of a span: the first tid that is not older.
Tid parse_since(std::string_view text, const Storage& storage);

// "1.5 MiB"; exact below 1024.
std::string human_size(std::uint64_t bytes);

}  // namespace zbig
