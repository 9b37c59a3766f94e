// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "agent/database.h"
#include "agent/device_record.h"

// Agent: all databases with their devices, by name. What the HTTP API calls.
//
// Threads: any. Locks: Agent::mutex_ is taken for looking up and adding, never across an operation;
// the databases have their own (agent/database.h).

namespace zbig {

struct AttachRequest {
  std::string url;
  std::string volume;
  std::optional<std::string> name;
  bool read_only = false;
  std::optional<Tid> at;  // implies read_only
  FrontEndKind front_end = FrontEndKind::kFuse;
  std::optional<std::string> fuse_path;  // absolute
  std::optional<std::uint32_t> nbd_index;
  std::optional<BlockFormat> format;  // otherwise $WENDELIN_CORE_ZBLK_FMT, otherwise ZBlk0
  bool follow = true;
  std::uint64_t size = 0;
  bool wait_for_room = true;
};

class Agent {
 public:
  // `feed_grace`: how long devices may not know whether they show the present (agent/database.h,
  // D7)
  Agent(Server::Places places, std::chrono::seconds feed_grace, std::stop_token stop);
  ~Agent();

  // Brings back what the state folder knows of; returns when it has been tried once.
  void start();

  DeviceStatus attach(const AttachRequest& request);
  DetachOutcome detach(const std::string& device, bool discard, bool force);
  // The devices are of one database; throws Invalid otherwise.
  CommitOutcome commit(const std::vector<std::string>& devices, const CommitRequest& request);
  // Into a database of which a device is known; throws NotFound otherwise, as does the first.
  void require_database(const std::string& url) const;
  CommitOutcome import(const std::string& url, const ImportRequest& request,
                       const ImportFile& file);
  void abort(const std::vector<std::string>& devices);
  void refresh(const std::vector<std::string>& devices);
  std::vector<DeviceStatus> status();
  DeviceStatus status(const std::string& device);

  const Server::Places& places() const { return places_; }

 private:
  struct Found {
    std::shared_ptr<Database> database;
    std::string name;
  };
  std::shared_ptr<Database> database_of(const std::string& url);
  std::shared_ptr<Database> known_database(const std::string& url) const;
  // A device by its name, its node or its link.
  Found find(const std::string& device);
  std::string reserve_name(const AttachRequest& request, Database& database);
  void release_name(const std::string& name);
  // Forgets databases without devices that nobody is using.
  void prune();
  std::vector<std::shared_ptr<Database>> all_databases() const;

  const Server::Places places_;
  const std::chrono::seconds feed_grace_;
  const DeviceStore store_;
  const std::stop_token stop_;

  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Database>> databases_;  // by canonical URL; guarded
  std::set<std::string> names_;                                 // in use; guarded by mutex_
};

}  // namespace zbig
