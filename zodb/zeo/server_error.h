// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "zodb/error.h"
#include "zodb/zeo/message.h"

// A server's exceptions as ours.

namespace zbig::zeo {

// Is it an unknown object? (Deleted ones are unknown too.)
bool is_key_error(const Message& reply);
// Throws Conflict: of a map with oid and serials, as a server tells a conflict, or of a
// POSKeyError's reply, whose object is gone.
[[noreturn]] void throw_conflict(Value map, const std::string& context);
[[noreturn]] void throw_conflict(const Message& key_error, const std::string& context);
// Throws what an exception reply says, with "CONTEXT: " in front: Conflict (with the object, where
// it is said), ReadOnly, NotFound, NoSpace, else Failed.
[[noreturn]] void throw_server_error(const Message& reply, const std::string& context);

}  // namespace zbig::zeo
