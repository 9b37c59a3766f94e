// SPDX-License-Identifier: BSD-3-Clause
#include <cstdlib>

#include "bigfile/commit.h"

namespace zbig {

std::optional<BlockFormat> parse_block_format(std::string_view text) {
  if (text == "ZBlk0") return BlockFormat::kZBlk0;
  if (text == "ZBlk1") return BlockFormat::kZBlk1;
  if (text == "auto") return BlockFormat::kAuto;
  return std::nullopt;
}

BlockFormat block_format_from_environment() {
  // Called while a program starts, before it has threads that could change the environment.
  const char* value = std::getenv("WENDELIN_CORE_ZBLK_FMT");  // NOLINT(concurrency-mt-unsafe)
  if (value == nullptr) return BlockFormat::kZBlk0;
  if (const std::optional<BlockFormat> format = parse_block_format(value)) return *format;
  throw Invalid(std::string("WENDELIN_CORE_ZBLK_FMT is '") + value +
                "': it can be ZBlk0, ZBlk1 or auto");
}

}  // namespace zbig
