// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/filestorage/check.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "zodb/error.h"
#include "zodb/filestorage/file_storage.h"
#include "zodb/filestorage/log.h"

namespace zbig::fs {

namespace {

// Whether some process holds the lock. Asked only where there is a tail: the question takes the
// lock for a moment, in which a writer that starts is refused.
bool has_writer(const std::string& path) {
  const int fd = ::open((path + ".lock").c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool locked = ::flock(fd, LOCK_SH | LOCK_NB) != 0;
  ::close(fd);
  return locked;
}

const char* describe(Tail tail) {
  switch (tail) {
    case Tail::kNone:
      return "nothing";
    case Tail::kShortHeader:
      return "the beginning of a transaction's header";
    case Tail::kCheckpoint:
      return "a transaction that was never finished";
    case Tail::kIncomplete:
      return "a transaction that is longer than what is left of the file";
    case Tail::kNoise:
      return "what is no transaction";
  }
  return "nothing";
}

}  // namespace

void check_file(const std::string& path, const std::function<void(const std::string&)>& on_defect) {
  const DataFile file(path, DataFile::Access::kRead, 0);
  Index index;
  LogScanner scanner(file, kMagicSize, kNoTid);
  try {
    check_magic(file);
    while (const auto* transaction = scanner.next(index)) {
      for (const auto& record : transaction->records) index.set(record.oid, record.position);
    }
  } catch (const Corrupt& error) {
    on_defect(error.what());
    return;
  }
  if (scanner.tail() == Tail::kNone || has_writer(path)) return;
  on_defect(path + " at " + std::to_string(scanner.position()) + ": behind the last whole " +
            "transaction, " + scanner.last_tid().hex() + ", stands " + describe(scanner.tail()) +
            " (" + std::to_string(file.size() - scanner.position()) +
            " bytes, which the next opening for writing moves to a .tr file)");
}

void FileStorage::check(const std::function<void(const std::string&)>& on_defect) const {
  check_file(path_, on_defect);
}

}  // namespace zbig::fs
