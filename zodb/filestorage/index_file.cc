// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/filestorage/index_file.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include <fcntl.h>
#include <unistd.h>

#include "zodb/error.h"
#include "zodb/filestorage/log_scanner.h"

namespace zbig::fs {

namespace {

// ZODB ignores the index of a file that ends before this, so every reader must be able to scan.
constexpr std::uint64_t kMinCovered = 100;
constexpr int kCheckedRecords = 5;
constexpr std::size_t kSamples = 32;

// Whether the first records of the transaction at `start` are where the index has them.
// Nothing: there are none.
std::optional<bool> records_match(const DataFile& file, const IndexImage& image,
                                  std::uint64_t start, const TransactionHeader& header) {
  const auto end = start + header.length;
  auto at = start + header.full_size();
  if (at == end) return std::nullopt;
  for (int checked = 0; at < end && checked < kCheckedRecords; ++checked) {
    std::byte bytes[RecordHeader::kSize];
    if (end - at < sizeof bytes || file.read_some(at, bytes) != sizeof bytes) return false;
    const auto record = RecordHeader::parse(bytes);
    if (record.transaction != start || record.full_size() < record.data_size ||
        record.full_size() > end - at) {
      return false;
    }
    // A later record of the same object in the same transaction takes its place.
    const auto found = image.find(record.oid);
    if (!found || *found < at || *found >= end) return false;
    at += record.full_size();
  }
  return true;
}

bool sample_matches(const DataFile& file, const IndexImage& image) {
  const auto& buckets = image.buckets();
  const auto step = std::max<std::size_t>(1, buckets.size() / kSamples);
  for (std::size_t i = 0; i < buckets.size(); i += step) {
    const auto& bucket = buckets[i];
    const auto entry = static_cast<std::uint32_t>(i * 40503 % bucket.count);
    std::byte bytes[RecordHeader::kSize];
    const auto position = bucket.position(entry);
    if (position >= image.covered() || file.read_some(position, bytes) != sizeof bytes ||
        RecordHeader::parse(bytes).oid != bucket.oid(entry)) {
      return false;
    }
  }
  return true;
}

class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& path)
      : path_(path), fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
    if (fd_ < 0) throw_errno("cannot create " + path_, errno);
  }
  ~TemporaryFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!renamed_) ::unlink(path_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  void write(ByteView bytes) {
    while (!bytes.empty()) {
      const auto done = ::write(fd_, bytes.data(), bytes.size());
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) throw_errno("cannot write " + path_, errno);
      bytes = bytes.subspan(static_cast<std::size_t>(done));
    }
  }

  void rename_to(const std::string& name) {
    if (::fsync(fd_) != 0) throw_errno("cannot sync " + path_, errno);
    if (std::rename(path_.c_str(), name.c_str()) != 0) {
      throw_errno("cannot rename " + path_ + " to " + name, errno);
    }
    renamed_ = true;
  }

 private:
  std::string path_;
  int fd_;
  bool renamed_ = false;
};

}  // namespace

std::optional<UsableIndex> load_index(const DataFile& file) {
  std::shared_ptr<const IndexImage> image = IndexImage::map(index_path(file.path()));
  if (!image || image->covered() < kMinCovered || image->covered() > file.size()) {
    return std::nullopt;
  }
  try {
    UsableIndex usable{image, kNoTid, 0};
    // Transactions without records say nothing of the index: go back to one that has some.
    auto end = image->covered();
    for (;;) {
      const auto start = transaction_before(file, kMagicSize, end);
      if (!start) return std::nullopt;
      std::byte bytes[TransactionHeader::kSize];
      file.read(*start, bytes);
      const auto header = TransactionHeader::parse(bytes);
      if (header.status == TransactionHeader::kCheckpoint) return std::nullopt;
      if (usable.last_transaction == 0) {
        usable.last_transaction = *start;
        usable.last_tid = header.tid;
      }
      end = *start;
      if (header.status == TransactionHeader::kUndone) continue;
      const auto match = records_match(file, *image, *start, header);
      if (!match) continue;
      if (!*match || !sample_matches(file, *image)) return std::nullopt;
      return usable;
    }
  } catch (const Corrupt&) {
    return std::nullopt;  // a damaged bucket: as good as no index
  }
}

void save_index(const std::string& data_path, const IndexImage& image, std::uint64_t covered) {
  const auto buckets = image.canonical_buckets();
  invariant(buckets.has_value(), "an index is saved in the form that every ZODB reads");
  TemporaryFile file(index_path(data_path) + ".index_tmp");
  file.write(IndexImageWriter::head(covered));
  file.write(*buckets);
  file.write(IndexImageWriter::tail());
  file.rename_to(index_path(data_path));
  sync_folder_of(data_path);
}

}  // namespace zbig::fs
