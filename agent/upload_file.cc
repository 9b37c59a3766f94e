// SPDX-License-Identifier: BSD-3-Clause
#include "agent/upload_file.h"

#include <algorithm>
#include <cerrno>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "zodb/error.h"

namespace zbig {
namespace {

constexpr std::size_t kStep = 256u << 10;

Fd open_unnamed(const std::string& directory) {
  Fd fd(::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd || errno != EOPNOTSUPP) return fd;
  std::string name = directory + "/upload-XXXXXX";
  fd = Fd(::mkostemp(name.data(), O_CLOEXEC));
  if (fd) ::unlink(name.c_str());
  return fd;
}

}  // namespace

UploadFile::UploadFile(const std::string& directory, HttpUpload& upload)
    : fd_(open_unnamed(directory)) {
  if (!fd_) throw_errno("keep an upload in " + directory, errno);
  std::vector<std::byte> buffer(kStep);
  while (const std::size_t length = upload.read(buffer)) {
    const auto begin = buffer.begin();
    const auto end = begin + static_cast<std::ptrdiff_t>(length);
    const bool zeros = std::all_of(begin, end, [](std::byte b) { return b == std::byte{0}; });
    for (std::size_t done = zeros ? length : 0; done < length;) {
      const ssize_t n = ::pwrite(fd_.get(), buffer.data() + done, length - done,
                                 static_cast<off_t>(size_ + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) throw_errno("keep an upload in " + directory, errno);
      done += static_cast<std::size_t>(n);
    }
    size_ += length;
  }
  if (::ftruncate(fd_.get(), static_cast<off_t>(size_)) != 0) {
    throw_errno("keep an upload in " + directory, errno);
  }
}

}  // namespace zbig
