// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string_view>

namespace zbig {

// One line on stderr, "zbigd: SENTENCE", written at once. Control characters are shown as '?', so
// that no name or message can forge a line. Any thread.
void log_line(std::string_view sentence) noexcept;

}  // namespace zbig
