// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

// numpy's names of simple item types.

namespace zbig {

struct DType {
  std::string str;              // numpy's dtype.str: "<f8", "|u1", ">i4", "|S10"
  std::uint64_t item_size = 0;  // in bytes
};

// What numpy.dtype(text) gives on a little-endian machine for a simple type: a code ("f8", "<i4",
// ">u2", "S10", "V16", "?") or a name ("uint8", "float64", "bool"). Nothing for anything else:
// structured types, dates, objects.
std::optional<DType> parse_dtype(std::string_view text);

}  // namespace zbig
