// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string_view>

namespace zbig::fuse {

// One line on stderr, "zbig-fuse: SENTENCE", written at once; control characters are shown as '?'.
void say(std::string_view sentence) noexcept;

}  // namespace zbig::fuse
