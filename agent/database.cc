// SPDX-License-Identifier: BSD-3-Clause
#include "agent/database.h"

#include <algorithm>
#include <cerrno>

#include <nlohmann/json.hpp>
#include <sys/eventfd.h>

#include "agent/hinted_error.h"
#include "agent/log.h"
#include "zodb/url.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kSyncDeadline{10 * 60 * 1000};
constexpr milliseconds kGrowDeadline{20000};
constexpr milliseconds kForcedSyncDeadline{3000};
constexpr milliseconds kForcedRequestDeadline{1000};

std::uint64_t number_of(const Json& json, const char* key) {
  return json.contains(key) && json[key].is_number_unsigned() ? json[key].get<std::uint64_t>() : 0;
}

}  // namespace

Database::Database(Context context, std::string url)
    : context_(std::move(context)),
      url_(std::move(url)),
      server_(context_.places, url_, context_.stop),
      wake_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!wake_fd_) throw_errno("make an eventfd", errno);
}

Database::~Database() {
  keeper_.request_stop();
  wake_keeper();
}

// --- devices by name

void Database::remember(DeviceRecord record) {
  auto device = std::make_unique<Device>();
  device->last_commit = context_.store->last_commit(record.name);
  device->at = device->settled_at = context_.store->view(record.name);
  device->problem = "it is being brought back";
  device->record = std::move(record);
  const std::lock_guard lock(mutex_);
  const std::string name = device->record.name;
  devices_[name] = std::move(device);
}

Database::Device& Database::find(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto at = devices_.find(name);
  if (at == devices_.end()) throw NotFound("no device " + name);
  return *at->second;
}

Database::Device& Database::find_usable(const std::string& name) {
  // The keeper would bring it back in a moment: after us.
  if (find(name).record.attached && !server_.alive()) recover();
  Device& device = find(name);
  if (!device.record.attached) {
    throw HintedError(ErrorCode::kNotFound, "device " + name + " is detached",
                      "attach " + device.record.volume + " again to get its uncommitted data back");
  }
  if (!device.served) {
    throw Unavailable("device " + name + " does not work at the moment: " + device.problem);
  }
  return device;
}

std::vector<Database::Device*> Database::attached_devices() {
  const std::lock_guard lock(mutex_);
  std::vector<Device*> result;
  for (auto& [name, device] : devices_) {
    if (device->record.attached) result.push_back(device.get());
  }
  return result;
}

std::optional<std::string> Database::kept_device(const std::string& volume,
                                                 const std::optional<std::string>& name) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [own_name, device] : devices_) {
    if (!device->record.attached && device->record.volume == volume &&
        (!name || *name == own_name)) {
      return own_name;
    }
  }
  return std::nullopt;
}

bool Database::has(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  return devices_.contains(name);
}

std::optional<std::string> Database::name_of(const std::string& device) const {
  const std::lock_guard lock(mutex_);
  if (devices_.contains(device)) return device;
  for (const auto& [name, item] : devices_) {
    if (item->record.attached && node_of(item->record, server_) == device) return name;
  }
  return std::nullopt;
}

bool Database::empty() const {
  const std::lock_guard lock(mutex_);
  return devices_.empty();
}

Gate::Pass Database::enter(const std::string& operation) {
  return gate_.enter(operation, context_.stop);
}

void Database::save(Device& device) { context_.store->save(device.record); }

// And saves it.
void Database::change_record(Device& device, const std::function<void(DeviceRecord&)>& change) {
  DeviceRecord changed = device.record;
  change(changed);
  {
    const std::lock_guard lock(mutex_);
    device.record = std::move(changed);
  }
  save(device);
}

FrontEnd& Database::front_of(Device& device) {
  if (!device.front) {
    device.front = make_front_end(
        device.record, {.store = context_.store, .server = &server_, .places = &context_.places});
  }
  return *device.front;
}

void Database::bring_up(Device& device) {
  promise_size(device);
  front_of(device).bring_up(device.size);
  {
    const std::lock_guard lock(mutex_);
    device.shown_size = device.size;
  }
  DeviceRecord noted = device.record;
  front_of(device).note(noted);
  if (noted.nbd_index == device.record.nbd_index) return;
  change_record(device, [&](DeviceRecord& record) { record = std::move(noted); });
}

// --- size (D8)

void Database::note_size(Device& device, std::uint64_t size, std::uint64_t volume_size) {
  if (volume_size < device.volume_size) {
    log_line("volume " + device.record.volume + " has " + std::to_string(volume_size) +
             " bytes now; device " + device.record.name + " keeps its " + std::to_string(size) +
             ", and shows zeros past that");
  }
  device.size = size;
  device.volume_size = volume_size;
}

void Database::promise_size(Device& device) {
  if (device.record.least_size >= device.size) return;
  // On the disk first, or it would not be tried again.
  DeviceRecord promised = device.record;
  promised.least_size = device.size;
  context_.store->save(promised);
  const std::lock_guard lock(mutex_);
  device.record.least_size = device.size;
}

void Database::show_size(Device& device) {
  if (device.shown_size == device.size) return;
  promise_size(device);
  front_of(device).grow(device.record, kGrowDeadline);
  log_line("device " + device.record.name + " has grown to " + std::to_string(device.size) +
           " bytes");
  const std::lock_guard lock(mutex_);
  device.shown_size = device.size;
}

// --- attach

// The first device of a volume is its plain export; a pinned one never, for whoever asks for a
// volume by its name expects its present. Nor does a front end that is only read: when the server
// was started anew, and has no devices yet, it would take the export that every volume has.
std::string Database::choose_export(const DeviceRecord& record) const {
  const std::lock_guard lock(mutex_);
  const bool taken = std::any_of(devices_.begin(), devices_.end(), [&](const auto& item) {
    const DeviceRecord& other = item.second->record;
    return other.attached && other.export_name == record.volume && other.name != record.name;
  });
  const bool only_read = record.read_only && record.front_end != FrontEndKind::kSocket;
  return taken || record.pinned || only_read ? record.volume + "#" + record.name : record.volume;
}

void Database::lock_storage() {
  if (storage_) return;
  try {
    auto storage = open_storage(url_, OpenMode::kWrite);
    if (is_shared_url(url_)) storage->sync();  // is it there, and may we write?
    storage_ = std::move(storage);
    const std::lock_guard lock(mutex_);
    lock_problem_.clear();
  } catch (const Busy& error) {
    {
      const std::lock_guard lock(mutex_);
      lock_problem_ = error.what();
    }
    throw HintedError(ErrorCode::kBusy, error.what(),
                      "another program has the database open for writing: end it, or attach with "
                      "--read-only");
  } catch (const Error& error) {
    const std::lock_guard lock(mutex_);
    lock_problem_ = error.what();
    throw;
  }
}

// Begins to; whoever wants to know whether the server is there calls sync().
void Database::watch_shared() {
  if (watch_ || !is_shared_url(url_)) return;
  watched_storage_ = open_storage(url_, OpenMode::kRead);
  watch_ = watched_storage_->subscribe([this](Tid, std::span<const Oid>) { wake_keeper(); });
}

// Gives the device to the server, with its overlay. `resume`: at the view that it had, if that is
// known; for its pages are in the kernel, and only a refresh moves a device that does not follow.
void Database::serve(Device& device, bool resume) {
  const DeviceRecord& record = device.record;
  std::string at = "head";
  if (resume && record.read_only && device.at != Tid{}) at = device.at.hex();
  if (record.pinned) at = record.pinned->hex();
  Json request = {{"op", "attach"},
                  {"device", record.name},
                  {"export", record.export_name},
                  {"volume", record.volume},
                  {"at", at},
                  {"resume", resume},
                  {"size", record.size},
                  {"least", resume ? record.least_size : 0},
                  {"read_only", record.read_only},
                  {"on_full", record.wait_for_room ? "wait" : "error"}};
  if (!record.read_only) request["overlay"] = context_.store->overlay(record.name);
  const Json reply = server_.request(request);
  const auto shown = Tid::parse_hex(reply.value("at", ""));
  if (!shown) throw Failed("the server's reply to attach has no tid");
  device.settled = reply.value("settled", false);
  const std::lock_guard lock(mutex_);
  device.stale = false;
  device.record.facts = reply.value("facts", device.record.facts);
  device.at = *shown;
  note_size(device, number_of(reply, "size"), number_of(reply, "volume_size"));
  device.heard.dirty_bytes = number_of(reply, "dirty_bytes");
  device.served = true;
}

DeviceStatus Database::attach(DeviceRecord record) {
  const std::string name = record.name;
  {
    const auto pass = enter("attach " + name);
    attach_device(std::move(record));
  }
  wake_keeper();
  for (DeviceStatus& status : status()) {
    if (status.record.name == name) return std::move(status);
  }
  throw NotFound("device " + name + " was detached at once");
}

void Database::attach_device(DeviceRecord record) {
  bool taken_over = false;
  {
    const std::lock_guard lock(mutex_);
    const auto at = devices_.find(record.name);
    taken_over = at != devices_.end();
    if (taken_over && (at->second->record.attached || at->second->record.volume != record.volume)) {
      throw Busy("the name " + record.name + " is in use");
    }
  }
  watch_shared();
  if (watched_storage_) watched_storage_->sync();
  if (!record.read_only) lock_storage();
  server_.ensure_running();
  record.export_name = choose_export(record);
  record.complete = false;
  record.attached = true;
  Device* device = nullptr;
  {
    auto owned = std::make_unique<Device>();
    owned->record = std::move(record);
    owned->problem = "it is being attached";
    device = owned.get();
    const std::lock_guard lock(mutex_);
    devices_[device->record.name] = std::move(owned);
  }
  try {
    save(*device);
    serve(*device, false);
    change_record(*device, [&](DeviceRecord& all) { front_of(*device).prepare(all); });
    bring_up(*device);
    if (!device->settled) settle(*device, all_pages(), kSyncDeadline);
    change_record(*device, [](DeviceRecord& all) { all.complete = true; });
  } catch (...) {
    // What was kept of an earlier device stays kept.
    try {
      withdraw(*device);
      forget(*device, false, taken_over, true);
    } catch (const std::exception& error) {
      log_line("attach " + device->record.name + ": while undoing it: " + error.what());
    }
    close_if_unused();
    wake_keeper();
    throw;
  }
  if (!keeper_.joinable()) start();
  log_line("attached " + device->record.name + ": " + device->record.volume + " of " + url_ +
           " at " + device->at.hex() + ", " + node_of(device->record, server_));
}

// --- detach

ServedDevice Database::served_status(const Device& device, milliseconds timeout) const {
  auto all = server_.status(timeout);
  const auto at = all.find(device.record.name);
  if (at == all.end()) throw Unavailable("the server does not know device " + device.record.name);
  return at->second;
}

std::uint64_t Database::last_heard_dirty(const Device& device) const {
  const std::lock_guard lock(mutex_);
  return device.heard.dirty_bytes;
}

// Takes the node away, dead or alive.
void Database::withdraw(Device& device) {
  front_of(device).end_by_force();
  device.front.reset();
}

// What follows on the node's end: the link, the mount point, the server's side, the folder.
void Database::forget(Device& device, bool discard, bool keep, bool force) {
  const DeviceRecord& record = device.record;
  if (device.served) {
    const Json request = {
        {"op", "detach"}, {"device", record.name}, {"discard", discard}, {"keep", keep}};
    try {
      server_.request(request, force ? kForcedRequestDeadline : Server::kDeadline);
    } catch (const Unavailable& error) {
      if (!force) throw;
      log_line("detach " + record.name + ": " + error.what());
    }
  }
  front_of(device).remove_names(record);
  if (keep) {
    {
      const std::lock_guard lock(mutex_);
      device.record.attached = false;
      device.served = false;
    }
    try {
      save(device);
    } catch (const NoSpace& error) {
      // It is gone from here all the same; an agent that is started before there is room and
      // somebody attached it again brings it back, with its writes.
      log_line("detach " + record.name + ": " + error.what());
    }
    return;
  }
  context_.store->remove(record.name);
  const std::lock_guard lock(mutex_);
  devices_.erase(std::string(record.name));
}

// What the server has once it has all that programs wrote.
std::uint64_t Database::dirty_after_sync(Device& device) {
  if (device.record.read_only) return 0;
  front_of(device).sync(kSyncDeadline);
  const ServedDevice served = served_status(device, Server::kDeadline);
  return served.dirty_bytes + served.frozen_bytes;
}

// Ends the front end whatever state it is in, after a fair try to bring what the kernel holds to
// the server. False if nobody knows whether there are uncommitted writes; `dirty`: how many, or
// what was last heard.
bool Database::end_by_force(Device& device, std::uint64_t& dirty) {
  dirty = last_heard_dirty(device);
  if (device.served && !device.record.read_only) {
    try {
      front_of(device).sync(kForcedSyncDeadline);
    } catch (const Error& error) {
      log_line(std::string("detach by force, without what the kernel holds: ") + error.what());
    }
  }
  withdraw(device);
  if (device.record.read_only) return true;
  if (!device.served) return false;
  try {
    // Afterwards, since a program may have written to the last.
    const ServedDevice served = served_status(device, kForcedRequestDeadline);
    dirty = served.dirty_bytes + served.frozen_bytes;
    return true;
  } catch (const Error& error) {
    log_line("detach by force: " + std::string(error.what()));
    return false;
  }
}

DetachOutcome Database::detach(const std::string& name, bool discard, bool force) {
  // Whoever has the gate may be waiting for a server that is stuck, and so would we.
  if (force) server_.end_if_stuck(kForcedRequestDeadline);
  const auto pass = enter("detach " + name);
  Device& device = find(name);
  DetachOutcome outcome;
  if (!device.record.attached) {
    if (!discard) {
      throw HintedError(
          ErrorCode::kBusy,
          "device " + name + " is detached already, and its uncommitted data are kept",
          "attach " + device.record.volume +
              " again to get them back, or give them up with --discard");
    }
    outcome.discarded_bytes = last_heard_dirty(device);
    forget(device, true, false, true);
    return outcome;
  }
  if (!device.served && !force) {
    throw HintedError(ErrorCode::kUnavailable,
                      "device " + name + " does not work at the moment: " + device.problem,
                      "--force detaches it and keeps its uncommitted data");
  }
  std::uint64_t dirty = 0;
  bool keep = false;
  if (force) {
    const bool known = end_by_force(device, dirty);
    keep = !discard && (dirty > 0 || !known);
  } else {
    dirty = discard ? last_heard_dirty(device) : dirty_after_sync(device);
    if (dirty > 0 && !discard) {
      throw HintedError(
          ErrorCode::kBusy,
          "device " + name + " has " + std::to_string(dirty) + " uncommitted bytes",
          "`zbig commit " + name + "` or `zbig abort " + name +
              "` first; --discard gives them up, --force keeps them for the next attach");
    }
    front_of(device).end();
  }
  if (discard) outcome.discarded_bytes = dirty;
  if (keep) outcome.kept_bytes = dirty;
  try {
    forget(device, discard, keep, force);
  } catch (const Busy&) {
    // A program wrote something in the last moment: the device stays.
    bring_up(device);
    throw;
  }
  close_if_unused();
  wake_keeper();
  log_line("detached " + name + (keep ? ", keeping its uncommitted data" : ""));
  return outcome;
}

void Database::close_if_unused() {
  const std::vector<Device*> attached = attached_devices();
  if (attached.empty()) {
    server_.stop();
    watch_.reset();
    watched_storage_.reset();
  }
  const bool writable = std::any_of(attached.begin(), attached.end(),
                                    [](const Device* device) { return !device->record.read_only; });
  if (!writable) {
    storage_.reset();
    const std::lock_guard lock(mutex_);
    lock_problem_.clear();
  }
}

}  // namespace zbig
