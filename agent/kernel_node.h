// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/front_end.h"
#include "agent/kernel_nbd/device.h"
#include "agent/kernel_nbd/netlink.h"

// KernelNode: a device as /dev/nbdX, by the kernel's own NBD client (agent/kernel_nbd/).
//
// The device is in the kernel and needs no process but the server. When the server dies, programs
// wait; the agent starts the next server and connects the kernel to it. When the agent dies,
// nothing happens; the next one finds the device by its identifier.
//
// N1  The identifier has the device's name and an instance, which is drawn at attach and on disk
//     before the kernel hears of it. So whatever is cut short, the device is found again, and no
//     other agent's device of that name is taken for it; and since the overlay goes with the
//     record, the kernel is never connected to a server that does not know what an earlier one
//     acknowledged.
// N2  A connection is told of as dead once, and may be replaced only after that. So what was told
//     is taken note of before reconnecting, never after.
// N3  Whoever waits for the kernel holds the gate, so that the keeper cannot connect it again: the
//     waiter does that itself when it is told of a dead connection.
// N4  Nothing is dropped of a device that is mounted or otherwise claimed: its view stays
//     (claimed()).
// N5  The connection is to an export without a size (docs/control-protocol.md), for a connection
//     cannot be told of another one. What the kernel is told is the device's size.

namespace zbig {

// For udev: volume, oid, dtype, shape.
std::map<std::string, std::string> udev_facts(const DeviceRecord& record);

class KernelNode : public FrontEnd {
 public:
  struct Places {
    std::string name;
    std::string identifier;              // device_identifier(name, instance)
    std::optional<std::uint32_t> index;  // of /dev/nbdX, as asked for or as it was
    bool index_asked = false;            // no other will do
    std::string export_name;
    std::map<std::string, std::string> facts;  // udev_facts()
    bool read_only = false;
  };
  KernelNode(Places places, const Server& server) : places_(std::move(places)), server_(server) {}

  void prepare(DeviceRecord&) const override {}
  void bring_up(std::uint64_t size) override;
  void note(DeviceRecord& record) const override;
  bool well() override;
  std::vector<int> watched() const override;
  std::vector<pid_t> processes() const override { return {}; }
  void sync(std::chrono::milliseconds timeout) override;
  bool claimed() override;
  void drop_pages(const StalePages& pages, std::chrono::milliseconds timeout) override;
  void discard_pages(const StalePages& pages, std::chrono::milliseconds timeout) override;
  void grow(const DeviceRecord& record, std::chrono::milliseconds timeout) override;
  void end() override;
  void end_by_force() override;
  void remove_names(const DeviceRecord& record) const override;

 private:
  KernelAttachOptions options() const;
  KernelAttachOptions options_to_attach() const;
  bool adopt();
  void attach(std::uint64_t size);
  void reconnect();
  bool keep_connected();
  KernelDevice& device() const;
  ExtentList extents_of(const StalePages& pages) const;

  const Places places_;
  const Server& server_;
  std::unique_ptr<KernelDevice> device_;
  std::unique_ptr<LinkMonitor> monitor_;  // as long as device_
  bool link_dead_ = false;
  pid_t connected_to_ = 0;  // the server's process
  std::optional<std::uint32_t> index_ = places_.index;
};

}  // namespace zbig
