// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "nbdkit-plugin/device.h"
#include "nbdkit-plugin/export.h"
#include "nbdkit-plugin/served_database.h"

// ExportTable: which exports there are, and the devices that the agent attached.
//
// An export's name is, in this order: a device's export; a device's export followed by "#frozen"; a
// volume, at the head of the moment of connecting; a volume followed by "@" and a tid.
//
// A client that opens several connections to one volume (NBD's multi-conn) must not see the head
// move between them, or what it copies is a mixture of two states. So as long as a process has one
// open, its further ones show the same state.
//
// Threads: any. The lock of the devices is held for look-ups only, so a device that waits for its
// storage keeps nobody from the others.

namespace zbig {

class ExportTable {
 public:
  explicit ExportTable(std::shared_ptr<ServedDatabase> database) : database_(std::move(database)) {}

  ServedDatabase& database() { return *database_; }

  // `client`: the process that connects, where it is known. Throws NotFound.
  std::shared_ptr<Export> connect(const std::string& name, std::optional<std::int64_t> client);

  struct Listed {
    std::string name;
    std::string description;
  };
  std::vector<Listed> list(const std::function<void(const std::string&)>& on_error);
  // The export of a client that names none: the only volume. Nothing if there are more or none.
  std::optional<std::string> default_export();

  // Throws Busy if the name or the export is taken.
  std::shared_ptr<Device> attach(DeviceConfig config);
  // Returns the bytes of uncommitted writes; see Device::close.
  std::uint64_t detach(const std::string& name, Device::Close how);
  std::shared_ptr<Device> device(const std::string& name) const;  // throws NotFound
  std::vector<std::shared_ptr<Device>> devices() const;

 private:
  std::shared_ptr<Device> device_of_export(const std::string& export_name) const;
  std::shared_ptr<Export> connect_to_head(const std::string& volume,
                                          std::optional<std::int64_t> client);

  const std::shared_ptr<ServedDatabase> database_;

  mutable std::mutex mutex_;
  // By device name; guarded by mutex_. Null while it is being attached or detached.
  std::map<std::string, std::shared_ptr<Device>> devices_;
  std::map<std::string, std::string> exports_;  // export name -> device name; likewise
  // What the open connections of a client to a volume show; likewise.
  std::map<std::pair<std::int64_t, std::string>, std::weak_ptr<ViewExport>> heads_;
};

}  // namespace zbig
