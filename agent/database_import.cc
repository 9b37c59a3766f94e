// SPDX-License-Identifier: BSD-3-Clause

// Import of a file into a volume of a database that the agent has open: as it holds the lock of
// the FileStorage, nobody else could. A transaction like any other client's: clean devices follow
// it at once, a device that has uncommitted writes to the same blocks has a conflict to come.

#include "agent/database.h"
#include "agent/log.h"

namespace zbig {

CommitOutcome Database::import(const ImportRequest& request, const ImportFile& file) {
  const auto pass = enter("import " + request.volume);
  CommitResult result;
  try {
    lock_storage();
    result = import_file(*storage_, request, file, [this](std::uint64_t, std::uint64_t) {
      if (context_.stop.stop_requested()) throw Unavailable("the agent is stopping");
    });
  } catch (...) {
    close_if_unused();
    throw;
  }
  log_line("import " + request.volume + " of " + url_ + ": " +
           (result.tid ? result.tid->hex() : "nothing changed"));
  if (result.tid) follow(result.tid);
  close_if_unused();
  CommitOutcome outcome;
  outcome.tid = result.tid;
  outcome.blocks_changed = result.blocks_changed;
  outcome.bytes_stored = result.bytes_stored;
  return outcome;
}

}  // namespace zbig
