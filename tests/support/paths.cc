// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/paths.h"

namespace zbig::test {

std::string repository(const std::string& path) { return ZBIG_REPOSITORY "/" + path; }
std::string test_data(const std::string& path) { return repository("tests/data/" + path); }

}  // namespace zbig::test
