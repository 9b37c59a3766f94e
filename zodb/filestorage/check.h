// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <functional>
#include <string>

// What `zbig check` asks of Data.fs: a scan from the first byte to the last, whatever
// Data.fs.index says, by the rules of LogScanner.

namespace zbig::fs {

// `on_defect` gets a sentence, with the place, for the first damaged transaction (what comes after
// it cannot be told from noise), and for what stands behind the last whole one; unless a writer has
// the file locked, for then that is a commit in progress.
void check_file(const std::string& path, const std::function<void(const std::string&)>& on_defect);

}  // namespace zbig::fs
