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
//
// Another database may have none of the old one's objects, or other objects by their oids; what is
// not there looks as a pack would leave it. But a pack begins with a transaction of the old file,
// of which it kept some records. (A pack keeps nothing that the old file had if every object, the
// root too, was stored anew since; then we refuse what we might have followed.)

namespace zbig::fs {

// The newest transaction of `before` whose changes are not in `after`; nothing if it continues.
std::optional<Tid> first_break(const Log& before, const Log& after);

}  // namespace zbig::fs
