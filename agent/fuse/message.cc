// SPDX-License-Identifier: BSD-3-Clause
#include "agent/fuse/message.h"

#include <string>

#include <unistd.h>

namespace zbig::fuse {

void say(std::string_view sentence) noexcept {
  try {
    std::string line = "zbig-fuse: ";
    for (const char c : sentence) line += static_cast<unsigned char>(c) < 32 ? '?' : c;
    line += '\n';
    // What cannot be written (a closed pipe, a full disk) is lost: there is nobody to tell.
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
  } catch (...) {
    // Out of memory: nothing to say it with.
  }
}

}  // namespace zbig::fuse
