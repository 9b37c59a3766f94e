// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>

#include "tests/support/temp_dir.h"
#include "tests/support/zeo_server.h"
#include "zodb/storage.h"

// A new database behind one backend, for tests of what every Storage does: a FileStorage, or that
// of a real ZEO server.

namespace zbig::test {

class StorageLab {
 public:
  // "file", or the Python environment of a ZEO server ("py3", "py2"). Nothing where that is not
  // installed.
  static std::unique_ptr<StorageLab> make(const std::string& backend);

  std::shared_ptr<Storage> open(OpenMode mode) const;

 private:
  StorageLab() = default;

  TempDir dir_;
  std::unique_ptr<ZeoServer> server_;
};

}  // namespace zbig::test
