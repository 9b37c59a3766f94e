// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "zodb/error.h"
#include "zodb/zeo/message.h"

// A server's exceptions as ours.

namespace zbig::zeo {

// Is it an unknown object? (Deleted ones are unknown too.)
bool is_key_error(const Message& reply);
// Throws what an exception reply says, with "CONTEXT: " in front: Conflict (with the object, where
// it is said), ReadOnly, NotFound, NoSpace, else Failed.
[[noreturn]] void throw_server_error(const Message& reply, const std::string& context);

}  // namespace zbig::zeo
