// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "cli/verb.h"

// The verbs that work on a database without the agent, one file each (`verb_NAME.cc`).

namespace zbig {

Verb create_verb();
Verb ls_verb();
Verb info_verb();
Verb export_verb();
Verb import_verb();
Verb log_verb();
Verb diff_verb();
Verb check_verb();

}  // namespace zbig
