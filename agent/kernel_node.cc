// SPDX-License-Identifier: BSD-3-Clause
#include "agent/kernel_node.h"

#include <cctype>
#include <mutex>
#include <thread>

#include <unistd.h>

#include "agent/hinted_error.h"
#include "agent/kernel_nbd/drop_probe.h"
#include "agent/kernel_nbd/holders.h"
#include "agent/kernel_nbd/node.h"
#include "agent/log.h"
#include "zodb/error.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kAttachDeadline{20000};
constexpr milliseconds kLinkDeadline{5000};
constexpr milliseconds kClaimDeadline{2000};
constexpr milliseconds kDetachDeadline{60 * 1000};
constexpr milliseconds kForceDeadline{3000};
// A program that has just looked at the device, like udev's, lets go of it in this time.
constexpr milliseconds kHolderPatience{500};
// drop_pages() and sync() in turn, until nothing is kept.
constexpr int kDropRounds = 3;

// How this kernel drops pages: tried once by this process, when the first device needs it.
DropProbe drop_probe() {
  static std::mutex mutex;
  static std::optional<DropProbe> known;
  const std::lock_guard lock(mutex);
  if (!known) known = probe_drop_methods(deadline_in(kAttachDeadline));
  return *known;
}

std::string joined(const std::vector<std::string>& items) {
  std::string text;
  for (const std::string& item : items) text += (text.empty() ? "" : ", ") + item;
  return text;
}

}  // namespace

std::map<std::string, std::string> udev_facts(const DeviceRecord& record) {
  std::map<std::string, std::string> facts = {{"ZBIG_VOLUME", record.volume}};
  for (const auto& [key, value] : record.facts) {
    std::string name = "ZBIG_";
    for (const char c : key) name += static_cast<char>(std::toupper(c));
    facts[name] = value;
  }
  return facts;
}

KernelAttachOptions KernelNode::options() const {
  KernelAttachOptions options;
  options.socket_path = server_.nbd_socket();
  options.export_name = places_.export_name + "#growing";  // N5
  options.identifier = places_.identifier;
  options.index = index_;
  options.read_only = places_.read_only;
  options.deadline = deadline_in(kAttachDeadline);
  return options;
}

KernelAttachOptions KernelNode::options_to_attach() const {
  const DropProbe probe = drop_probe();
  KernelAttachOptions options = this->options();
  options.drop_method = places_.read_only ? probe.read_only : probe.writable;
  if (options.drop_method == DropMethod::kNone) {
    throw HintedError(
        ErrorCode::kUnsupported,
        "this kernel cannot drop pages of a block device: programs would see old data",
        "attach as a file, with --fuse PATH");
  }
  return options;
}

void KernelNode::bring_up(std::uint64_t size) {
  if (device_) {
    if (!well()) reconnect();
  } else if (!adopt()) {
    attach(size);
  }
  if (size > device_->size()) device_->grow(size, deadline_in(kLinkDeadline));
  ensure_link(places_.name, device_->index(), deadline_in(kLinkDeadline));
}

bool KernelNode::adopt() {
  const auto index = sysfs_find(places_.identifier);
  if (!index) return false;
  index_ = index;
  const KernelAttachOptions options = options_to_attach();
  monitor_ = std::make_unique<LinkMonitor>();
  device_ = KernelDevice::adopt(options);
  log_line("took over " + device_->node() + " of device " + places_.name);
  reconnect();
  return true;
}

void KernelNode::attach(std::uint64_t size) {
  if (::geteuid() != 0) {
    throw HintedError(ErrorCode::kUnsupported, "/dev/nbdX needs an agent that runs as root",
                      "start zbigd as root; or attach as a file, with --fuse PATH");
  }
  try {
    KernelAttachOptions options = options_to_attach();
    options.size = size;
    publish_properties(places_.identifier, {.name = places_.name, .more = places_.facts});
    monitor_ = std::make_unique<LinkMonitor>();
    try {
      device_ = KernelDevice::attach(options);
    } catch (const Busy&) {
      if (!options.index || places_.index_asked) throw;
      options.index.reset();
      device_ = KernelDevice::attach(options);
    }
  } catch (const HintedError&) {
    throw;
  } catch (const Unsupported& error) {
    throw HintedError(ErrorCode::kUnsupported, error.what(),
                      "`modprobe nbd max_part=0` loads the module where the kernel has it; or "
                      "attach as a file, with --fuse PATH");
  }
  index_ = device_->index();
  connected_to_ = server_.pid();
  link_dead_ = false;
  for (const std::string& warning : device_->warnings()) log_line(warning);
}

void KernelNode::reconnect() {
  link_dead_ = false;
  connected_to_ = 0;
  device_->reconnect(server_.nbd_socket(), deadline_in(kAttachDeadline));
  connected_to_ = server_.pid();
}

bool KernelNode::well() {
  if (!device_) return false;
  while (const auto dead = monitor_->read()) {
    if (*dead == device_->index() || *dead == LinkMonitor::kAll) link_dead_ = true;
  }
  return !link_dead_ && connected_to_ == server_.pid();
}

std::vector<int> KernelNode::watched() const {
  if (!monitor_) return {};
  return {monitor_->fd()};
}

// N3.
bool KernelNode::keep_connected() {
  if (!server_.alive() || server_.stop_token().stop_requested()) return false;
  if (!well()) {
    try {
      reconnect();
    } catch (const Error& error) {
      log_line("connecting " + device_->node() + " anew: " + error.what());
      return false;
    }
  }
  return true;
}

void KernelNode::note(DeviceRecord& record) const { record.nbd_index = index_; }

KernelDevice& KernelNode::device() const {
  if (!device_) throw Unavailable("the kernel's device of " + places_.name + " is not there");
  return *device_;
}

void KernelNode::sync(milliseconds timeout) {
  device().sync(deadline_in(timeout), [this] { return keep_connected(); });
}

bool KernelNode::claimed() { return device().claimed(deadline_in(kClaimDeadline)); }

ExtentList KernelNode::extents_of(const StalePages& pages) const {
  return pages.whole ? ExtentList{{0, device().size()}} : pages.extents;
}

// What is kept was written to by a program. Once sync has brought such a page to the server, all of
// it, it is not stale: the server shows the same. It is tried again for pages that were kept
// because somebody was just at them, and what stays of those is not passed over in silence.
void KernelNode::drop_pages(const StalePages& pages, milliseconds timeout) {
  const Deadline deadline = deadline_in(timeout);
  const GoOn go_on = [this] { return keep_connected(); };
  ExtentList left = extents_of(pages);
  for (int round = 0; round < kDropRounds && !left.empty(); ++round) {
    left = device().drop_pages(left, DirtyPages::kKeep, deadline, go_on);
    if (!left.empty()) device().sync(deadline, go_on);
  }
  if (left.empty()) return;
  const ExtentList old = device().old_pages(left, deadline, go_on);
  if (old.empty()) return;
  throw Unavailable(std::to_string(total_length(old) / kPageSize) + " old pages of " +
                    device().node() + " stay in memory, one at " +
                    std::to_string(old.front().offset));
}

void KernelNode::discard_pages(const StalePages& pages, milliseconds timeout) {
  device().drop_pages(extents_of(pages), DirtyPages::kDiscard, deadline_in(timeout),
                      [this] { return keep_connected(); });
}

void KernelNode::grow(const DeviceRecord& record, milliseconds timeout) {
  // First, for udev looks at them when the size changes.
  publish_properties(places_.identifier, {.name = places_.name, .more = udev_facts(record)});
  if (record.least_size > device().size()) device().grow(record.least_size, deadline_in(timeout));
}

void KernelNode::end() {
  if (!device_) return end_by_force();
  const Deadline patience = deadline_in(kHolderPatience);
  std::vector<std::string> holders = device_holders(device_->index());
  while (!holders.empty() && std::chrono::steady_clock::now() < patience) {
    std::this_thread::sleep_for(milliseconds(20));
    holders = device_holders(device_->index());
  }
  if (!holders.empty()) {
    throw HintedError(ErrorCode::kBusy, "a program has " + device_->node() + " open or mapped",
                      "end it, or detach with --force: " + joined(holders));
  }
  try {
    device_->detach(DetachMode::kClean, deadline_in(kDetachDeadline));
  } catch (const Busy& error) {
    throw HintedError(ErrorCode::kBusy, error.what(), "unmount it first, or detach with --force");
  }
  device_.reset();
  monitor_.reset();
}

void KernelNode::end_by_force() {
  try {
    if (!device_) {
      if (const auto index = sysfs_find(places_.identifier)) {
        index_ = index;
        device_ = KernelDevice::adopt(options());
      }
    }
    if (device_ && device_->detach(DetachMode::kForce, deadline_in(kForceDeadline))) {
      log_line("programs still have " + device_->node() + " of device " + places_.name +
               " open or mapped: they get errors");
    }
  } catch (const Error& error) {
    log_line("detach of " + places_.name + " by force: " + error.what());
  }
  device_.reset();
  monitor_.reset();
}

void KernelNode::remove_names(const DeviceRecord& record) const {
  if (const auto index = index_ ? index_ : record.nbd_index) {
    remove_link(places_.name, *index, deadline_in(kLinkDeadline));
  }
  withdraw_properties(places_.identifier);
}

}  // namespace zbig
