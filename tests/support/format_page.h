// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <map>
#include <string>

#include "zodb/bytes.h"

// The hex examples of a page of docs/formats, which tests check, so that the page stays true.

namespace zbig::test {

// By name: of "```hex NAME" the bytes up to "```". A line is a dump ("0010  20 6f ...  |..|") or
// just hex digits. Throws std::runtime_error if the page is not there or a line is neither.
std::map<std::string, Bytes> hex_examples(const std::string& page);

}  // namespace zbig::test
