// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/storage_lab.h"

namespace zbig::test {

std::unique_ptr<StorageLab> StorageLab::make(const std::string& backend) {
  std::unique_ptr<StorageLab> lab(new StorageLab);
  if (backend == "file") return lab;
  lab->server_ = ZeoServer::start({.environment = backend});
  return lab->server_ ? std::move(lab) : nullptr;
}

std::shared_ptr<Storage> StorageLab::open(OpenMode mode) const {
  return open_storage(server_ ? server_->url() : dir_ / "Data.fs", mode);
}

}  // namespace zbig::test
