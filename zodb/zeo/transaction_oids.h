// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "zodb/ids.h"
#include "zodb/zeo/channel.h"

namespace zbig::zeo {

// Asks the server what transaction `tid` stored, for when it told of the transaction without saying
// what (objects that were deleted or restored). `done`, in the loop's thread, gets nothing if the
// server cannot tell; it is not called if the connection ends.
void ask_oids_of(Channel& channel, Tid tid,
                 std::function<void(std::optional<std::vector<Oid>>)> done);

}  // namespace zbig::zeo
