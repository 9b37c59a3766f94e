// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

// Where this checkout is. Only paths.cc is told by the build, so that the other tests compile to
// the same objects in every checkout, and a compiler cache serves them all.

namespace zbig::test {

// A path below the root of the repository.
std::string repository(const std::string& path);
// A path below tests/data: databases that the original programs wrote.
std::string test_data(const std::string& path);

}  // namespace zbig::test
