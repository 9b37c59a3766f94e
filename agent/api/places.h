// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

// Where the agent's socket and state are, unless told otherwise. Shared by zbigd and zbig, so that
// they find each other.
//
//             socket                             state
// root        /run/zbig/zbigd.sock               /var/lib/zbig
// otherwise   $XDG_RUNTIME_DIR/zbig/zbigd.sock   $XDG_STATE_HOME/zbig, or ~/.local/state/zbig
//
// Without XDG_RUNTIME_DIR (no login session) the socket is in /tmp/zbig-UID, which the agent makes
// for its user alone and refuses to use if it is anybody else's.

namespace zbig {

std::string default_agent_socket();
std::string default_state_directory();

}  // namespace zbig
