// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "zodb/pickle_value.h"
#include "zodb/pickle_writer.h"

namespace zbig::test {

// A value as Python's repr would show it, near enough: b'..' bytes, '..' str of Python 2, u'..'
// text, <module.name> a class, ref(..) a reference, object(..), opaque. Bytes as they are.
std::string repr(Value value);

// Writes the value as it was read.
void rewrite(RecordWriter& writer, Value value);

}  // namespace zbig::test
