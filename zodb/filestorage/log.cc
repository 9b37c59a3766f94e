// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/filestorage/log.h"

#include <algorithm>
#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include "zodb/error.h"
#include "zodb/filestorage/index_file.h"

namespace zbig::fs {

namespace {

// Copies the file from `begin` on to the first free PATH.trN.
void keep_tail(const DataFile& file, std::uint64_t begin, std::uint64_t end) {
  std::string path;
  int fd = -1;
  for (int n = 0; fd < 0; ++n) {
    path = file.path() + ".tr" + std::to_string(n);
    fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0 && errno != EEXIST) throw_errno("cannot keep the cut tail in " + path, errno);
  }
  Bytes buffer(1 << 20);
  int error = 0;
  for (auto at = begin; at < end && error == 0;) {
    auto got = file.read_some(
        at, std::span(buffer).first(std::min<std::uint64_t>(buffer.size(), end - at)));
    if (got == 0) break;
    at += got;
    for (const std::byte* from = buffer.data(); got != 0 && error == 0;) {
      const auto done = ::write(fd, from, got);
      if (done < 0) {
        error = errno == EINTR ? 0 : errno;
        continue;
      }
      from += done;
      got -= static_cast<std::size_t>(done);
    }
  }
  if (error == 0 && ::fsync(fd) != 0) error = errno;
  ::close(fd);
  if (error == 0) return;
  ::unlink(path.c_str());
  throw_errno("cannot keep the cut tail in " + path, error);
}

}  // namespace

void Log::add(const ScannedTransaction& transaction) {
  for (const auto& record : transaction.records) index.set(record.oid, record.position);
  committed = {transaction.end(), transaction.header.tid};
  last_transaction = transaction.position;
  index_saved = false;
}

Log open_log(const std::string& path, DataFile::Access access, std::uint64_t generation) {
  Log log;
  log.file = std::make_shared<DataFile>(path, access, generation);
  check_magic(*log.file);
  log.committed = {kMagicSize, kNoTid};
  if (auto usable = load_index(*log.file)) {
    log.committed = {usable->image->covered(), usable->last_tid};
    log.last_transaction = usable->last_transaction;
    log.index = Index(std::move(usable->image));
    log.index_used = log.index_saved = true;
  }
  LogScanner scanner(*log.file, log.committed.end, log.committed.last_tid);
  while (const auto* transaction = scanner.next(log.index)) log.add(*transaction);
  log.tail = scanner.tail();
  if (log.index.wants_merge()) {
    log.index.adopt(log.index.merged(log.committed.end, "the index of " + path));
  }
  return log;
}

void create_log(const std::string& path) {
  DataFile file(path, DataFile::Access::kCreate, 0);
  file.write(0, as_bytes(kMagicPython3));
  file.sync();
  sync_folder_of(path);
}

void cut_tail(Log& log) {
  auto& file = *log.file;
  const auto end = log.committed.end;
  const auto size = file.size();
  if (size == 0) {  // a database that was made, and never committed to
    file.write(0, as_bytes(kMagicPython3));
    file.sync();
    return;
  }
  if (log.tail == Tail::kNone) return;
  if (const auto good = transaction_before(file, end, size); good && *good > end) {
    file.corrupt(end, "the transaction here is damaged, and whole ones follow up to " +
                          std::to_string(size) +
                          "; opening for writing would cut them off (fsrecover repairs this)");
  }
  if (log.tail != Tail::kShortHeader) keep_tail(file, end, size);
  file.truncate(end);
  file.sync();
  log.tail = Tail::kNone;
}

}  // namespace zbig::fs
