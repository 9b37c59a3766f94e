// SPDX-License-Identifier: BSD-3-Clause

#include "cli/progress.h"

#include <algorithm>
#include <iostream>

#include <unistd.h>

#include "cli/forms.h"

namespace zbig {
namespace {

constexpr std::size_t kBarWidth = 24;

}  // namespace

Progress::Progress(std::string title)
    : title_(std::move(title)), terminal_(::isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (drawn_) std::cerr << "\r\x1b[K" << std::flush;
}

void Progress::update(std::uint64_t done, std::uint64_t total) {
  const auto now = Clock::now();
  if (!terminal_ || now < next_) return;
  next_ = now + std::chrono::milliseconds(100);
  drawn_ = true;
  const double share =
      total == 0 ? 0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const auto filled = static_cast<std::size_t>(share * kBarWidth);
  std::string bar(filled, '=');
  if (filled < kBarWidth) bar += ">" + std::string(kBarWidth - filled - 1, ' ');
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const auto rate = static_cast<std::uint64_t>(static_cast<double>(done) / seconds);
  std::cerr << "\r" << title_ << "  [" << bar << "]  " << static_cast<int>(share * 100) << "%  "
            << human_size(done) << " of " << human_size(total) << "  " << human_size(rate)
            << "/s\x1b[K" << std::flush;
}

}  // namespace zbig
