// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bigfile/changes.h"
#include "bigfile/view.h"
#include "zodb/storage.h"

// The database that the server serves: its storage, its newest state, and views of its volumes.
//
// Connections that show the same volume at the same tid share one view, and so its caches. The view
// that was asked for last is kept when its last connection closes, so that clients that come one
// after the other find the caches warm. A server may be pinned to one tid; then that is its head
// and nothing newer is shown.
//
// Threads: any. No lock is held while the storage is asked.

namespace zbig {

class ServedDatabase {
 public:
  // Throws what open_storage throws, and what check_pinned() throws unless that has to wait: a
  // shared database needs a thread, which a fork would lose.
  ServedDatabase(const std::string& url, std::optional<Tid> pinned);
  // Throws NotFound if the database has no transaction at the pinned tid.
  void check_pinned();

  const std::string& url() const { return storage_->url(); }
  bool pinned() const { return pinned_.has_value(); }

  // The newest tid that is shown, after a look at what others committed.
  Tid head();
  // Throws NotFound unless the state at `at` can be shown (now, or after a look).
  void require(Tid at);

  // Throws NotFound.
  std::shared_ptr<const View> view(const std::string& volume, Tid at);
  // `view` at another tid, backwards too.
  std::shared_ptr<const View> moved(const std::shared_ptr<const View>& view, Tid to);
  // What of the view's volume changed between its tid and `to`.
  Changes changes(const View& view, Tid to) const;

  std::vector<Volume> volumes(Tid at, const std::function<void(const std::string&)>& on_error);

 private:
  std::vector<Oid> changed_oids(Tid from, Tid to) const;
  std::shared_ptr<const View> shared(const std::string& volume, std::shared_ptr<const View> view);

  const std::shared_ptr<Storage> storage_;
  const std::optional<Tid> pinned_;

  std::mutex mutex_;
  std::map<std::pair<std::string, Tid>, std::weak_ptr<const View>> views_;  // guarded by mutex_
  std::shared_ptr<const View> last_asked_for_;                              // likewise
};

}  // namespace zbig
