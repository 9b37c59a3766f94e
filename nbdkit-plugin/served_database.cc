// SPDX-License-Identifier: BSD-3-Clause
#include "nbdkit-plugin/served_database.h"

#include <algorithm>

#include "zodb/error.h"
#include "zodb/url.h"

namespace zbig {

ServedDatabase::ServedDatabase(const std::string& url, std::optional<Tid> pinned)
    : storage_(open_storage(url, OpenMode::kRead)), pinned_(pinned) {
  if (!is_shared_url(url)) check_pinned();
}

void ServedDatabase::check_pinned() {
  if (pinned_ && storage_->sync() < *pinned_) {
    throw NotFound("no transaction " + pinned_->hex() + " in " + url() + ": the last one is " +
                   storage_->last_tid().hex());
  }
}

Tid ServedDatabase::head() {
  const Tid last = storage_->sync();
  return pinned_.value_or(last);
}

void ServedDatabase::require(Tid at) {
  if (!pinned_ && at <= storage_->last_tid()) return;
  const Tid newest = head();
  if (at > newest) {
    throw NotFound("no transaction " + at.hex() + " in " + url() + ": the last one " +
                   (pinned_ ? "shown" : "there") + " is " + newest.hex());
  }
}

std::shared_ptr<const View> ServedDatabase::view(const std::string& volume, Tid at) {
  require(at);
  {
    std::lock_guard lock(mutex_);
    const auto found = views_.find({volume, at});
    if (found != views_.end()) {
      if (std::shared_ptr<const View> view = found->second.lock()) {
        last_asked_for_ = view;
        return view;
      }
    }
  }
  auto view = shared(volume, View::open(storage_, find_volume(*storage_, volume, at), at));
  std::lock_guard lock(mutex_);
  last_asked_for_ = view;
  return view;
}

std::shared_ptr<const View> ServedDatabase::shared(const std::string& volume,
                                                   std::shared_ptr<const View> view) {
  std::lock_guard lock(mutex_);
  std::erase_if(views_, [](const auto& entry) { return entry.second.expired(); });
  auto& kept = views_[{volume, view->at()}];
  if (std::shared_ptr<const View> other = kept.lock()) return other;
  kept = view;
  return view;
}

std::vector<Oid> ServedDatabase::changed_oids(Tid from, Tid to) const {
  return storage_->changed_oids(std::min(from, to), std::max(from, to));
}

std::shared_ptr<const View> ServedDatabase::moved(const std::shared_ptr<const View>& view, Tid to) {
  require(to);
  if (to == view->at()) return view;
  const std::string& volume = view->volume().path;
  if (to < view->at()) return this->view(volume, to);
  return shared(volume, view->advance(to, changed_oids(view->at(), to)));
}

Changes ServedDatabase::changes(const View& view, Tid to) const {
  const std::vector<Oid> changed = changed_oids(view.at(), to);
  // Nobody committed anything: what every commit of a device alone on its database finds.
  if (changed.empty()) {
    Changes none;
    none.old_size = none.new_size = view.size();
    return none;
  }
  return changed_extents(*storage_, view.volume(), view.at(), to, changed);
}

std::vector<Volume> ServedDatabase::volumes(
    Tid at, const std::function<void(const std::string&)>& on_error) {
  return list_volumes(*storage_, at, on_error);
}

}  // namespace zbig
