// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>

#include "zodb/storage.h"

// A ZEO server's storage: a ZODB database in another process, maybe on another machine, that many
// clients read and write at once (docs/formats/zeo.md).
//
// Opening does not connect and starts no thread; the first call that needs the server does both,
// and waits up to the URL's wait_timeout for it. So does every call when the connection breaks
// later. What others commit is told by the server as it happens. A subscriber may be told of a
// transaction without oids: something changed, and the server has forgotten what; changed_oids()
// finds out.

namespace zbig {

// Throws Invalid for a URL that says nothing sensible.
std::unique_ptr<Storage> open_zeo(const std::string& url, OpenMode mode);
// The same URL however it was spelled. Throws Invalid.
std::string canonical_zeo_url(const std::string& url);

}  // namespace zbig
