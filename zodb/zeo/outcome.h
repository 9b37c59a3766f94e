// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>

#include "zodb/zeo/fingerprint.h"
#include "zodb/zeo/link.h"

// What became of a transaction whose tpc_finish was sent and not answered: of this process, or of
// one that died. Only the database can tell.
//
// Not more than one transaction can have made the next revision of an object that it stored, so
// that one is looked up and compared with what is remembered (zodb/zeo/fingerprint.h).

namespace zbig::zeo {

// The transaction's tid, if it was committed. Waits until it cannot be committed any more; `bytes`
// are those of its records, as far as known. Throws Unavailable if the server cannot be asked,
// NotFound if it was packed away and nothing can be known any more.
std::optional<Tid> find_transaction(Link& link, const Fingerprint::Mark& mark, std::uint64_t bytes);

}  // namespace zbig::zeo
