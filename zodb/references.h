// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <vector>

#include "zodb/pickle_value.h"

namespace zbig {

// Every reference to an object of this database in `state`, however deep, each place once, in no
// order. Takes time linear in the size of the pickle, whatever its memo makes reachable by many
// ways.
std::vector<PersistentRef> references_in(Value state);

}  // namespace zbig
