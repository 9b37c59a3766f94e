// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "agent/fd.h"
#include "agent/http_server.h"
#include "bigfile/import.h"

namespace zbig {

// What a client uploads, whole, in a file without a name: so a client that is slow, or goes away in
// the middle, keeps nobody waiting and changes nothing. Zeros are holes of it, so that they need no
// space here and, where the volume has a hole too, no looking at.
class UploadFile {
 public:
  // In `directory`. Throws NoSpace, and what HttpUpload::read throws.
  UploadFile(const std::string& directory, HttpUpload& upload);

  ImportFile file() const { return {fd_.get(), "the uploaded file", size_}; }

 private:
  Fd fd_;
  std::uint64_t size_ = 0;
};

}  // namespace zbig
