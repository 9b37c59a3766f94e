// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <span>

#include "zodb/zeo/link.h"
#include "zodb/zeo/object_cache.h"

// Loader: records as of a tid, from the cache or the server.
//
// The protocol loads one object a call, so what is wanted together is asked for together, before
// the first answer is waited for: as many calls are under way as bring some 32 MiB, judging by the
// answers so far. Two threads that want the same object as of the same tid share a call.
//
// Any thread.

namespace zbig::zeo {

class Loader {
 public:
  struct Wanted {
    Oid oid;
    Tid at;
  };
  using Visit = std::function<void(std::size_t index, const LoadedPtr& loaded)>;

  Loader(Link& link, ObjectCache& cache, const Feed& feed)
      : link_(link), cache_(cache), feed_(feed) {}

  // Calls `visit` for each, in any order: with the object's newest revision as of its `at`, or
  // nothing if it does not exist then. Throws Unavailable, Corrupt.
  void load(std::span<const Wanted> wanted, const Visit& visit);
  // Starts to load what is not in the cache, into the cache. Does not wait, and does not insist.
  void prefetch(std::span<const Oid> oids, Tid at);

 private:
  struct Answer {
    bool lost = false;  // the connection broke
    LoadedPtr loaded;
  };
  struct Flight {  // a call that is under way
    std::promise<Answer> promise;
    std::shared_future<Answer> answer{promise.get_future()};
  };
  using Key = std::pair<Oid, Tid>;  // before the tid

  std::shared_future<Answer> start(Channel& channel, Oid oid, Tid before);
  Answer take_in(const Reply& reply, Oid oid, Tid before);
  Answer wait(std::shared_future<Answer>& answer, Oid oid) const;
  static bool is_lost(const std::shared_future<Answer>& answer);
  std::size_t window() const;

  static constexpr std::uint64_t kBytesUnderWay = 32u << 20;
  static constexpr std::size_t kMostUnderWay = 512;

  Link& link_;
  ObjectCache& cache_;
  const Feed& feed_;
  std::atomic<std::uint64_t> usual_size_ = 64u << 10;  // of a record, lately

  std::mutex mutex_;
  std::map<Key, std::shared_ptr<Flight>> flights_;  // guarded by mutex_
};

}  // namespace zbig::zeo
