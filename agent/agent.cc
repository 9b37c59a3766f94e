// SPDX-License-Identifier: BSD-3-Clause
#include "agent/agent.h"

#include <algorithm>
#include <random>
#include <thread>

#include "agent/files.h"
#include "agent/freeze_mark.h"
#include "agent/fuse_mount.h"
#include "agent/hinted_error.h"
#include "agent/log.h"

namespace zbig {
namespace {

constexpr std::chrono::seconds kStartDeadline{30};

std::string size_problem(std::uint64_t size) {
  return "size " + std::to_string(size) + " is more than 2^62";
}

// 16 hex digits that no other agent draws.
std::string random_word() {
  std::random_device source;
  return Oid{std::uint64_t{source()} << 32 | source()}.hex();
}

}  // namespace

Agent::Agent(Server::Places places, std::chrono::seconds feed_grace, std::stop_token stop)
    : places_(std::move(places)),
      feed_grace_(feed_grace),
      store_(places_.state_directory),
      stop_(std::move(stop)) {}

Agent::~Agent() = default;

void Agent::start() {
  DeviceStore::Loaded loaded = store_.load();
  for (const std::string& name : loaded.unreadable) {
    thaw_marked(store_.freeze_mark(name));
    names_.insert(name);
  }
  std::set<std::shared_ptr<Database>> found;
  for (DeviceRecord& record : loaded.records) {
    thaw_marked(store_.freeze_mark(record.name));
    names_.insert(record.name);
    auto database = database_of(record.url);
    database->remember(std::move(record));
    found.insert(database);
  }
  for (const auto& database : found) database->start();
  const auto deadline = std::chrono::steady_clock::now() + kStartDeadline;
  for (const auto& database : found) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (!database->wait_recovered(std::chrono::duration_cast<std::chrono::milliseconds>(left))) {
      log_line("the devices of " + database->url() + " take long to come back; going on meanwhile");
    }
  }
}

std::shared_ptr<Database> Agent::database_of(const std::string& url) {
  const std::lock_guard lock(mutex_);
  auto& database = databases_[url];
  if (!database) {
    database = std::make_shared<Database>(
        Database::Context{
            .store = &store_, .places = places_, .feed_grace = feed_grace_, .stop = stop_},
        url);
  }
  return database;
}

std::vector<std::shared_ptr<Database>> Agent::all_databases() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Database>> result;
  for (const auto& [url, database] : databases_) result.push_back(database);
  return result;
}

std::string Agent::reserve_name(const AttachRequest& request, Database& database) {
  const auto kept = request.read_only || request.at
                        ? std::nullopt
                        : database.kept_device(request.volume, request.name);
  if (kept) return *kept;
  const std::lock_guard lock(mutex_);
  if (request.name) {
    if (!valid_device_name(*request.name)) {
      throw HintedError(
          ErrorCode::kInvalid, "device name '" + *request.name + "'",
          "a name has 1 to 64 letters, digits, '.', '_' and '-', starts with a letter "
          "or digit, and is not 'frozen'");
    }
    if (!names_.insert(*request.name).second) {
      throw HintedError(ErrorCode::kBusy, "the device name " + *request.name + " is in use",
                        "`zbig status` lists all devices");
    }
    return *request.name;
  }
  const std::string base = device_name_from(request.volume);
  std::string name = base;
  for (int i = 2; !names_.insert(name).second; ++i) name = base + "-" + std::to_string(i);
  return name;
}

void Agent::release_name(const std::string& name) {
  const std::lock_guard lock(mutex_);
  names_.erase(name);
}

DeviceStatus Agent::attach(const AttachRequest& request) {
  if (request.size > 1ull << 62) throw Invalid(size_problem(request.size));
  DeviceRecord record;
  record.url = canonical_url(request.url);
  record.volume = request.volume;
  record.read_only = request.read_only || request.at.has_value();
  record.pinned = request.at;
  record.follow = request.follow;
  record.format = request.format ? *request.format : block_format_from_environment();
  record.size = request.size;
  record.wait_for_room = request.wait_for_room;
  record.front_end = request.front_end;
  auto database = database_of(record.url);
  try {
    record.name = reserve_name(request, *database);
    if (record.front_end == FrontEndKind::kFuse) {
      if (!request.fuse_path) {
        make_directories(places_.runtime_directory + "/dev", 0755);
      }
      record.fuse_path = FuseMount::node_for(
          request.fuse_path.value_or(places_.runtime_directory + "/dev/" + record.name),
          record.name);
      if (::geteuid() == 0) record.link = "/dev/zbig/" + record.name;
    }
    if (record.front_end == FrontEndKind::kNbd) {
      record.nbd_index = request.nbd_index;
      record.nbd_index_asked = request.nbd_index.has_value();
      record.instance = random_word();
      record.link = "/dev/zbig/" + record.name;
    }
    return database->attach(record);
  } catch (...) {
    if (!database->has(record.name)) release_name(record.name);
    database.reset();
    prune();
    throw;
  }
}

void Agent::prune() {
  std::vector<std::shared_ptr<Database>> unused;  // destroyed without the lock
  const std::lock_guard lock(mutex_);
  for (auto at = databases_.begin(); at != databases_.end();) {
    // Nobody else has it, and nobody can get it while we have the lock.
    if (at->second.use_count() == 1 && at->second->empty()) {
      unused.push_back(std::move(at->second));
      at = databases_.erase(at);
    } else {
      ++at;
    }
  }
}

Agent::Found Agent::find(const std::string& device) {
  const std::string link = device.starts_with("/dev/zbig/") ? device.substr(10) : device;
  for (const auto& database : all_databases()) {
    if (const auto name = database->name_of(link)) return {database, *name};
  }
  throw HintedError(ErrorCode::kNotFound, "no device " + device, "`zbig status` lists all devices");
}

DetachOutcome Agent::detach(const std::string& device, bool discard, bool force) {
  Found found = find(device);
  const DetachOutcome outcome = found.database->detach(found.name, discard, force);
  if (!found.database->has(found.name)) release_name(found.name);
  found.database.reset();
  prune();
  return outcome;
}

CommitOutcome Agent::commit(const std::vector<std::string>& devices, const CommitRequest& request) {
  std::vector<std::string> names;
  std::shared_ptr<Database> database;
  for (const std::string& device : devices) {
    const Found found = find(device);
    if (database && found.database != database) {
      throw HintedError(
          ErrorCode::kInvalid,
          "the devices are of two databases: " + database->url() + " and " + found.database->url(),
          "a transaction is of one database: commit them one after the other");
    }
    database = found.database;
    names.push_back(found.name);
  }
  if (!database) throw Invalid("no device to commit");
  return database->commit(names, request);
}

std::shared_ptr<Database> Agent::known_database(const std::string& url) const {
  const std::string canonical = canonical_url(url);
  const std::lock_guard lock(mutex_);
  const auto found = databases_.find(canonical);
  if (found == databases_.end()) {
    throw HintedError(ErrorCode::kNotFound, "no device of " + canonical + " is attached",
                      "without one `zbig import` needs no agent");
  }
  return found->second;
}

void Agent::require_database(const std::string& url) const { known_database(url); }

CommitOutcome Agent::import(const std::string& url, const ImportRequest& request,
                            const ImportFile& file) {
  return known_database(url)->import(request, file);
}

void Agent::abort(const std::vector<std::string>& devices) {
  std::vector<Found> found;
  found.reserve(devices.size());
  for (const std::string& device : devices) found.push_back(find(device));
  for (const Found& item : found) item.database->abort(item.name);
}

void Agent::refresh(const std::vector<std::string>& devices) {
  std::vector<Found> found;
  found.reserve(devices.size());
  for (const std::string& device : devices) found.push_back(find(device));
  for (const Found& item : found) item.database->refresh(item.name);
}

std::vector<DeviceStatus> Agent::status() {
  // Each asks its server with a deadline of its own: ask all at once.
  const auto databases = all_databases();
  std::vector<std::vector<DeviceStatus>> parts(databases.size());
  {
    std::vector<std::jthread> threads;
    for (std::size_t i = 1; i < databases.size(); ++i) {
      threads.emplace_back([&, i] { parts[i] = databases[i]->status(); });
    }
    if (!databases.empty()) parts[0] = databases[0]->status();
  }
  std::vector<DeviceStatus> all;
  for (auto& part : parts) std::move(part.begin(), part.end(), std::back_inserter(all));
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return a.record.name < b.record.name; });
  return all;
}

DeviceStatus Agent::status(const std::string& device) {
  const Found found = find(device);
  for (DeviceStatus& status : found.database->status()) {
    if (status.record.name == found.name) return std::move(status);
  }
  throw NotFound("no device " + device);
}

}  // namespace zbig
