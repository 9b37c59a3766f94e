// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/subscribers.h"

#include <condition_variable>
#include <list>
#include <mutex>
#include <utility>
#include <vector>

namespace zbig {

namespace {

struct Callback {
  InvalidationFn fn;
  int running = 0;
};

}  // namespace

class Subscribers::List {
 public:
  std::shared_ptr<Callback> add(InvalidationFn fn) {
    const std::lock_guard lock(mutex_);
    return callbacks_.emplace_back(std::make_shared<Callback>(Callback{std::move(fn), 0}));
  }

  void remove(const std::shared_ptr<Callback>& callback) {
    std::unique_lock lock(mutex_);
    callbacks_.remove(callback);
    returned_.wait(lock, [&] { return callback->running == 0; });
  }

  void notify(Tid tid, std::span<const Oid> oids) {
    std::vector<std::shared_ptr<Callback>> called;
    {
      const std::lock_guard lock(mutex_);
      called.assign(callbacks_.begin(), callbacks_.end());
      for (const auto& callback : called) ++callback->running;
    }
    for (const auto& callback : called) {
      callback->fn(tid, oids);
      const std::lock_guard lock(mutex_);
      --callback->running;
      returned_.notify_all();
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable returned_;
  std::list<std::shared_ptr<Callback>> callbacks_;  // guarded by mutex_, as is `running`
};

class Subscribers::Entry : public Subscription {
 public:
  Entry(std::shared_ptr<List> list, std::shared_ptr<Callback> callback)
      : list_(std::move(list)), callback_(std::move(callback)) {}
  ~Entry() override { list_->remove(callback_); }

 private:
  std::shared_ptr<List> list_;
  std::shared_ptr<Callback> callback_;
};

Subscribers::Subscribers() : list_(std::make_shared<List>()) {}
Subscribers::~Subscribers() = default;

std::unique_ptr<Subscription> Subscribers::add(InvalidationFn callback) {
  return std::make_unique<Entry>(list_, list_->add(std::move(callback)));
}

void Subscribers::notify(Tid tid, std::span<const Oid> oids) noexcept { list_->notify(tid, oids); }

}  // namespace zbig
