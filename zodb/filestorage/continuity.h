// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>

#include "zodb/filestorage/log.h"

// Whether a file that was put in the place of another continues its history: a pack's does, a
// backup that was restored does not.
//
// A pack keeps, of every object it keeps at all, the newest revision, and everything after the
// time it packs to. So each object of the old file's last transaction is there with that revision,
// or is gone as garbage. A backup holds older revisions of them; and if it is older than that, it
// ends before the last transaction, as a pack's file may where the last one stored nothing but
// garbage: then all transactions that are missing are looked at.

namespace zbig::fs {

// The newest transaction of `before` whose changes are not in `after`; nothing if it continues.
std::optional<Tid> first_break(const Log& before, const Log& after);

}  // namespace zbig::fs
