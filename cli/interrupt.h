// SPDX-License-Identifier: BSD-3-Clause
#pragma once

// Ctrl-C and SIGTERM, for verbs that have something to undo.
//
// The first one sets a flag, which long loops look at: they leave by an exception, and destructors
// remove the half-written file or abort the transaction. A second one ends the process at once.

namespace zbig {

// From now on SIGINT and SIGTERM set the flag. Once, from main.
void catch_interrupts();

// Throws Failed("interrupted") if the flag is set.
void check_interrupt();

}  // namespace zbig
