// SPDX-License-Identifier: BSD-3-Clause
#include "agent/log.h"

#include <string>

#include <unistd.h>

namespace zbig {

void log_line(std::string_view sentence) noexcept {
  try {
    std::string line = "zbigd: ";
    for (const char c : sentence) {
      const auto byte = static_cast<unsigned char>(c);
      line += byte < 0x20 || byte == 0x7f ? '?' : c;
    }
    line += '\n';
    // One write: lines of several threads do not mix. If stderr is gone nobody can be told.
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
  } catch (const std::bad_alloc&) {
  }
}

}  // namespace zbig
