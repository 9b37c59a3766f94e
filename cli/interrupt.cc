// SPDX-License-Identifier: BSD-3-Clause

#include "cli/interrupt.h"

#include <csignal>

#include "zodb/error.h"

namespace zbig {
namespace {

volatile std::sig_atomic_t interrupted = 0;

void on_signal(int) { interrupted = 1; }

}  // namespace

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  // Without SA_RESTART a write to a pipe that nobody reads comes back too.
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int number : {SIGINT, SIGTERM}) ::sigaction(number, &action, nullptr);
}

void check_interrupt() {
  if (interrupted != 0) throw Failed("interrupted");
}

}  // namespace zbig
