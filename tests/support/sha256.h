// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "zodb/bytes.h"

namespace zbig::test {

// SHA-256 (FIPS 180-4) as 64 lower-case hex digits: the manifests of tests/data hold such.
std::string sha256_hex(ByteView bytes);

}  // namespace zbig::test
