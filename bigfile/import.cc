// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/import.h"

#include <algorithm>
#include <cerrno>
#include <limits>

#include <unistd.h>

#include "bigfile/view.h"

namespace zbig {
namespace {

// The parts that are not holes of the file.
ExtentList data_extents(const ImportFile& file) {
  const ExtentList all{{0, file.size}};
  ExtentList extents;
  for (std::uint64_t at = 0; at < file.size;) {
    const off_t data = ::lseek(file.fd, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;  // a hole up to the end
    if (data < 0) return all;               // a device, or a file system that does not tell
    const off_t hole = ::lseek(file.fd, data, SEEK_HOLE);
    if (hole < 0) return all;
    const auto end = std::min(static_cast<std::uint64_t>(hole), file.size);
    const auto start = static_cast<std::uint64_t>(data);
    if (start >= end) break;
    append_extent(extents, start, end - start);
    at = end;
  }
  return extents;
}

class FileSource final : public DirtySource {
 public:
  FileSource(const ImportFile& file, std::uint64_t offset, const View& view)
      : file_(file), offset_(offset) {
    std::vector<Extent> dirty = view.data_extents(offset, file.size);
    for (const Extent& extent : data_extents(file)) {
      dirty.push_back({offset + extent.offset, extent.length});
    }
    // A bare file ends with its last block: where the file ends with a hole past that, the block is
    // stored for its place.
    const std::uint64_t end = offset + file.size;
    if (file.size > 0 && end > view.size()) dirty.push_back({end - 1, 1});
    extents_ = normalised(std::move(dirty));
  }

  const ExtentList& extents() const override { return extents_; }

  void read(std::uint64_t offset, std::span<std::byte> out) override {
    offset -= offset_;
    while (!out.empty()) {
      const ssize_t count = ::pread(file_.fd, out.data(), out.size(), static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw_errno("read " + file_.name + " at " + std::to_string(offset), errno);
      if (count == 0) {
        throw Failed("read " + file_.name + " at " + std::to_string(offset) +
                     ": the file ends there now, it had " + std::to_string(file_.size) + " bytes");
      }
      offset += static_cast<std::uint64_t>(count);
      out = out.subspan(static_cast<std::size_t>(count));
    }
  }

 private:
  const ImportFile& file_;
  const std::uint64_t offset_;
  ExtentList extents_;
};

// An array has its size; a bare file grows up to the last block that a key can name.
void check_fits(const View& view, std::uint64_t offset, std::uint64_t length) {
  const Volume& volume = view.volume();
  const std::uint64_t limit = volume.kind == VolumeKind::kArray
                                  ? view.size()
                                  : std::uint64_t{std::numeric_limits<std::int64_t>::max()};
  if (offset <= limit && length <= limit - offset) return;
  throw Invalid(std::to_string(length) + " bytes at " + std::to_string(offset) + " end past " +
                volume.path + ", which has " + std::to_string(view.size()) +
                " bytes; nothing was changed");
}

}  // namespace

CommitResult import_file(Storage& storage, const ImportRequest& request, const ImportFile& file,
                         const ProgressFn& progress, const VotedFn& voted) {
  const Tid head = storage.sync();
  const auto view = View::open({&storage, [](const Storage*) {}},
                               find_volume(storage, request.volume, head), head);
  check_fits(*view, request.offset, file.size);
  FileSource source(file, request.offset, *view);
  const VolumeCommit change{view->volume(), head, &source, request.format};
  return commit(storage, std::span(&change, 1), request.meta, progress, voted);
}

}  // namespace zbig
