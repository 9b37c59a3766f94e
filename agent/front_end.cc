// SPDX-License-Identifier: BSD-3-Clause
#include "agent/front_end.h"

#include <nlohmann/json.hpp>

#include "agent/fuse_mount.h"
#include "agent/kernel_nbd/node.h"
#include "agent/kernel_node.h"
#include "zodb/error.h"

namespace zbig {
namespace {

// For NBD clients only: nothing stands before the server, and nothing can be stale.
class SocketOnly : public FrontEnd {
 public:
  void prepare(DeviceRecord&) const override {}
  void bring_up(std::uint64_t) override {}
  void note(DeviceRecord&) const override {}
  bool well() override { return true; }
  bool claimed() override { return false; }
  std::vector<int> watched() const override { return {}; }
  std::vector<pid_t> processes() const override { return {}; }
  void sync(std::chrono::milliseconds) override {}
  void drop_pages(const StalePages&, std::chrono::milliseconds) override {}
  void discard_pages(const StalePages&, std::chrono::milliseconds) override {}
  void grow(const DeviceRecord&, std::chrono::milliseconds) override {}
  void end() override {}
  void end_by_force() override {}
  void remove_names(const DeviceRecord&) const override {}
};

}  // namespace

StalePages stale_pages_of(const Json& reply) {
  if (!reply.contains("extents")) return all_pages();
  try {
    std::vector<Extent> extents;
    for (const Json& pair : reply["extents"]) {
      extents.push_back({pair.at(0).get<std::uint64_t>(), pair.at(1).get<std::uint64_t>()});
    }
    return {.whole = false, .extents = normalised(std::move(extents))};
  } catch (const Json::exception&) {
    throw Failed("the server's reply has extents that are none: " + reply["extents"].dump());
  }
}

std::unique_ptr<FrontEnd> make_front_end(const DeviceRecord& record,
                                         const FrontEndContext& context) {
  switch (record.front_end) {
    case FrontEndKind::kFuse: {
      const std::string folder = context.store->directory(record.name);
      return std::make_unique<FuseMount>(
          FuseMount::Places{.path = record.fuse_path,
                            .link = record.link,
                            .lock = folder + "/fuse.lock",
                            .log = folder + "/fuse.log",
                            .control = context.server->front_end_socket(record.name),
                            .program = context.places->fuse_program},
          *context.server, nbd_uri(context.server->nbd_socket(), record.export_name),
          record.read_only);
    }
    case FrontEndKind::kNbd:
      return std::make_unique<KernelNode>(
          KernelNode::Places{.name = record.name,
                             .identifier = device_identifier(record.name, record.instance),
                             .index = record.nbd_index,
                             .index_asked = record.nbd_index_asked,
                             .export_name = record.export_name,
                             .facts = udev_facts(record),
                             .read_only = record.read_only},
          *context.server);
    case FrontEndKind::kSocket:
      break;
  }
  return std::make_unique<SocketOnly>();
}

std::string node_of(const DeviceRecord& record, const Server& server) {
  switch (record.front_end) {
    case FrontEndKind::kFuse:
      return record.fuse_path;
    case FrontEndKind::kNbd:
      return record.nbd_index ? node_path(*record.nbd_index) : "";
    case FrontEndKind::kSocket:
      break;
  }
  return nbd_uri(server.nbd_socket(), record.export_name);
}

}  // namespace zbig
