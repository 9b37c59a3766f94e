// SPDX-License-Identifier: BSD-3-Clause
#include "nbdkit-plugin/export_table.h"

#include <utility>

#include "zodb/error.h"

namespace zbig {
namespace {

constexpr std::string_view kFrozenSuffix = "#frozen";
constexpr std::string_view kGrowingSuffix = "#growing";

// "/A" of "/A#frozen".
std::optional<std::string> without(const std::string& name, std::string_view suffix) {
  if (!name.ends_with(suffix)) return std::nullopt;
  return name.substr(0, name.size() - suffix.size());
}

// "/A@03f1000000000000" -> "/A" and the tid.
std::optional<std::pair<std::string, Tid>> split_at_tid(const std::string& name) {
  const std::size_t at = name.rfind('@');
  if (at == std::string::npos) return std::nullopt;
  const std::optional<Tid> tid = Tid::parse_hex(std::string_view(name).substr(at + 1));
  if (!tid) return std::nullopt;
  return std::pair(name.substr(0, at), *tid);
}

}  // namespace

std::shared_ptr<Device> ExportTable::device_of_export(const std::string& export_name) const {
  std::lock_guard lock(mutex_);
  const auto found = exports_.find(export_name);
  return found == exports_.end() ? nullptr : devices_.at(found->second);
}

std::shared_ptr<Export> ExportTable::connect_to_head(const std::string& volume,
                                                     std::optional<std::int64_t> client) {
  if (client) {
    std::lock_guard lock(mutex_);
    const auto found = heads_.find({*client, volume});
    if (found != heads_.end()) {
      if (auto shared = found->second.lock()) return shared;
    }
  }
  // Not under the lock: the storage may take its time.
  auto fresh =
      std::make_shared<ViewExport>(database_->view(volume, database_->head()), client.has_value());
  if (!client) return fresh;
  std::lock_guard lock(mutex_);
  std::erase_if(heads_, [](const auto& entry) { return entry.second.expired(); });
  std::weak_ptr<ViewExport>& kept = heads_[{*client, volume}];
  if (auto shared = kept.lock()) return shared;  // another connection of it was faster
  kept = fresh;
  return fresh;
}

std::shared_ptr<Export> ExportTable::connect(const std::string& name,
                                             std::optional<std::int64_t> client) {
  if (std::shared_ptr<Device> device = device_of_export(name)) {
    return std::make_shared<DeviceExport>(std::move(device));
  }
  if (const auto base = without(name, kFrozenSuffix)) {
    if (std::shared_ptr<Device> device = device_of_export(*base)) {
      return std::make_shared<FrozenExport>(std::move(device));
    }
  }
  if (const auto base = without(name, kGrowingSuffix)) {
    if (std::shared_ptr<Device> device = device_of_export(*base)) {
      return std::make_shared<GrowingExport>(std::move(device));
    }
  }
  const auto volume_and_tid = split_at_tid(name);
  try {
    return connect_to_head(name, client);
  } catch (const NotFound&) {
    if (!volume_and_tid) throw;
  } catch (const Invalid&) {
    if (!volume_and_tid) throw;
  }
  return std::make_shared<ViewExport>(
      database_->view(volume_and_tid->first, volume_and_tid->second), true);
}

std::vector<ExportTable::Listed> ExportTable::list(
    const std::function<void(const std::string&)>& on_error) {
  std::map<std::string, std::string> listed;
  for (const Volume& volume : database_->volumes(database_->head(), on_error)) {
    listed[volume.path] = describe(volume);
  }
  for (const std::shared_ptr<Device>& device : devices()) {
    try {
      const std::string& name = device->config().export_name;
      listed[name] = DeviceExport(device).description();
      static_cast<void>(device->overlay()->frozen());
      listed[name + std::string(kFrozenSuffix)] = FrozenExport(device).description();
    } catch (const Error&) {
      // Not frozen, or read-only, or detached since the list was begun.
    }
  }
  std::vector<Listed> result;
  result.reserve(listed.size());
  for (auto& [name, description] : listed) result.push_back({name, description});
  return result;
}

std::optional<std::string> ExportTable::default_export() {
  const auto volumes = database_->volumes(database_->head(), [](const std::string&) {});
  if (volumes.size() != 1) return std::nullopt;
  return volumes.front().path;
}

std::shared_ptr<Device> ExportTable::attach(DeviceConfig config) {
  if (database_->pinned() && !config.read_only) {
    throw ReadOnly("this server shows one state of the database: devices of it are read-only");
  }
  const std::string name = config.name;
  const std::string export_name = config.export_name;
  {
    std::lock_guard lock(mutex_);
    if (devices_.contains(name)) throw Busy("device " + name + " is attached already");
    if (exports_.contains(export_name)) {
      throw Busy("export " + export_name + " belongs to device " + exports_[export_name]);
    }
    devices_[name] = nullptr;
  }
  try {
    auto device = std::make_shared<Device>(std::move(config), database_);
    std::lock_guard lock(mutex_);
    if (exports_.contains(export_name)) {
      throw Busy("export " + export_name + " belongs to device " + exports_[export_name]);
    }
    devices_[name] = device;
    exports_[export_name] = name;
    return device;
  } catch (...) {
    std::lock_guard lock(mutex_);
    devices_.erase(name);
    throw;
  }
}

std::uint64_t ExportTable::detach(const std::string& name, Device::Close how) {
  const std::shared_ptr<Device> device = this->device(name);
  const std::uint64_t dirty = device->close(how);
  std::lock_guard lock(mutex_);
  devices_.erase(name);
  exports_.erase(device->config().export_name);
  return dirty;
}

std::shared_ptr<Device> ExportTable::device(const std::string& name) const {
  std::lock_guard lock(mutex_);
  const auto found = devices_.find(name);
  if (found == devices_.end() || !found->second) throw NotFound("no device " + name);
  return found->second;
}

std::vector<std::shared_ptr<Device>> ExportTable::devices() const {
  std::vector<std::shared_ptr<Device>> devices;
  std::lock_guard lock(mutex_);
  for (const auto& [name, device] : devices_) {
    if (device) devices.push_back(device);
  }
  return devices;
}

}  // namespace zbig
