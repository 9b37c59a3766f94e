// SPDX-License-Identifier: BSD-3-Clause
#include "agent/kernel_nbd/device.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/kernel_nbd/handshake.h"
#include "agent/kernel_nbd/netlink.h"
#include "agent/kernel_nbd/node.h"
#include "zodb/error.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr unsigned kMaxConnections = 16;
// What DISCONNECT gets to end the connections politely before they are cut.
constexpr milliseconds kPoliteDisconnect{2000};

std::vector<int> numbers(const std::vector<Fd>& fds) {
  std::vector<int> result;
  result.reserve(fds.size());
  for (const Fd& fd : fds) result.push_back(fd.get());
  return result;
}

unsigned wanted_connections(const KernelAttachOptions& options) {
  return std::clamp(options.connections, 1U, kMaxConnections);
}

void check_identifier(const std::string& identifier) {
  const bool good = identifier.starts_with("zbig:") && identifier.size() <= 200 &&
                    identifier.find_first_of("/ \n\t\"") == std::string::npos;
  if (!good) throw Invalid("attach: '" + identifier + "' cannot identify a device");
}

void check_size(std::uint64_t size, const std::string& sentence) {
  if (size == 0 || size % kPageSize != 0 || size > (std::uint64_t{1} << 62)) {
    throw Invalid(sentence + ": a device cannot have " + std::to_string(size) +
                  " bytes, but a multiple of 4096");
  }
}

// The flags that the kernel is told (K3).
std::uint16_t masked_flags(const NbdSocket& socket, const KernelAttachOptions& options) {
  std::uint16_t flags =
      kNbdHasFlags | (socket.flags & (kNbdReadOnly | kNbdFlush | kNbdFua | kNbdMultiConn));
  if (options.read_only) flags |= kNbdReadOnly;
  if (options.drop_method == DropMethod::kDiscard) {
    if ((socket.flags & kNbdTrim) != 0) {
      throw Unsupported("attach: pages are dropped by trim here, which this server would obey");
    }
    flags |= kNbdTrim;
  }
  return flags;
}

// The module's setting that costs a look for partitions in the user's data, and may find some.
std::optional<std::string> partition_warning() {
  std::ifstream file("/sys/module/nbd/parameters/max_part");
  std::string value;
  if (!(file >> value) || value == "0") return std::nullopt;
  return "the module nbd was loaded with max_part=" + value +
         ", so that the kernel looks for partitions in volumes; max_part=0 is right for zbig";
}

// An index that would make a punched hole reach the server; others are fine.
class SpoiltIndex : public Busy {
 public:
  using Busy::Busy;
};

}  // namespace

std::string device_identifier(const std::string& name, const std::string& instance) {
  if (!valid_link_name(name)) throw Invalid("'" + name + "' cannot be the name of a device");
  if (!valid_link_name(instance)) throw Invalid("'" + instance + "' cannot name a server");
  return "zbig:" + name + ":" + instance;
}

KernelDevice::KernelDevice(const KernelAttachOptions& options, std::uint32_t index)
    : index_(index),
      identifier_(options.identifier),
      export_name_(options.export_name),
      drop_method_(options.drop_method),
      socket_path_(options.socket_path) {}

KernelDevice::~KernelDevice() {
  leaving_.request_stop();
  const std::lock_guard lock(mutex_);
  if (!device_) return;
  try {
    last_close_ = close_apart(device_->get());
  } catch (const Error&) {
    // Then this process closes it, and waits.
  }
}

std::unique_ptr<KernelDevice> KernelDevice::attach(const KernelAttachOptions& options) {
  try {
    return attach_once(options);
  } catch (const SpoiltIndex&) {
    if (options.index) throw;
  }
  // The kernel would choose the same again.
  for (const std::uint32_t index : sysfs_unspoilt_indices()) {
    KernelAttachOptions chosen = options;
    chosen.index = index;
    try {
      return attach_once(chosen);
    } catch (const Busy&) {
      // Somebody else was faster.
    }
  }
  throw Busy("attach: no /dev/nbdX is free of what earlier connections left behind");
}

std::unique_ptr<KernelDevice> KernelDevice::attach_once(const KernelAttachOptions& options) {
  check_identifier(options.identifier);
  NbdNetlink netlink;
  NbdSocket first = nbd_connect(options.socket_path, options.export_name, options.deadline);
  const std::uint64_t size = options.size != 0 ? options.size : first.size;
  check_size(size, "attach");
  if (size > first.size) {
    throw Invalid("attach: the export has " + std::to_string(first.size) + " bytes, not " +
                  std::to_string(size));
  }
  const std::uint16_t flags = masked_flags(first, options);
  if ((flags & (kNbdReadOnly | kNbdFlush)) == 0) {
    throw Unsupported("attach: the server takes writes, but cannot flush them");
  }

  // The object exists only once its index is known, so the sockets are opened before it.
  std::uint64_t export_size = first.size;
  std::vector<Fd> sockets;
  sockets.push_back(std::move(first.fd));
  const unsigned connections = (flags & kNbdMultiConn) != 0 ? wanted_connections(options) : 1;
  while (sockets.size() < connections) {
    NbdSocket next = nbd_connect(options.socket_path, options.export_name, options.deadline);
    if (next.size < size || masked_flags(next, options) != flags) {
      throw Unavailable("attach: the export changes while it is being attached");
    }
    export_size = std::min(export_size, next.size);
    sockets.push_back(std::move(next.fd));
  }

  const std::vector<int> fds = numbers(sockets);
  const std::uint32_t index =
      netlink.connect({.index = options.index,
                       .size = size,
                       .server_flags = flags,
                       .request_timeout = options.request_timeout,
                       .dead_connection_timeout = options.dead_connection_timeout,
                       .identifier = options.identifier,
                       .sockets = fds});
  std::unique_ptr<KernelDevice> device(new KernelDevice(options, index));
  device->size_ = size;
  device->export_size_ = export_size;
  device->sockets_ = std::move(sockets);
  device->connections_ = connections;
  device->read_only_ = (flags & kNbdReadOnly) != 0;
  try {
    device->open_and_identify(options.deadline);
    device->check_queue();
    device->tune(options);
  } catch (...) {
    // Nobody has used it yet, so nothing is lost.
    try {
      if (sysfs_read(index, "backend") == options.identifier) {
        device->disconnect(true, deadline_in(milliseconds(5000)));
      }
    } catch (const Error&) {
      // The error that counts is the first.
    }
    throw;
  }
  return device;
}

std::unique_ptr<KernelDevice> KernelDevice::adopt(const KernelAttachOptions& options) {
  check_identifier(options.identifier);
  if (!options.index) throw Invalid("adopt: no index");
  std::unique_ptr<KernelDevice> device(new KernelDevice(options, *options.index));
  // Before the open, which waits if a stranger's device is stuck; after it again, since only then
  // it cannot change any more (K1).
  if (!sysfs_attached(device->index_) ||
      sysfs_read(device->index_, "backend") != options.identifier) {
    throw NotFound("adopt " + device->node() + ": it is not attached as " + options.identifier);
  }
  device->open_and_identify(options.deadline);
  device->connections_ = wanted_connections(options);
  device->read_only_ = sysfs_read(device->index_, "ro") == "1";
  const std::lock_guard lock(device->mutex_);
  if (::ioctl(device->device_->get(), BLKGETSIZE64, &device->size_) != 0) {
    throw_errno("ask the size of " + device->node(), errno);
  }
  return device;
}

std::string KernelDevice::node() const { return node_path(index_); }

std::uint64_t KernelDevice::size() const {
  const std::lock_guard lock(mutex_);
  return size_;
}

std::shared_ptr<Fd> KernelDevice::device() const {
  const std::lock_guard lock(mutex_);
  if (!device_) throw Unavailable(node() + " is detached");
  return device_;
}

void KernelDevice::open_and_identify(Deadline deadline) {
  ensure_node(index_, deadline);
  auto opened = std::make_shared<Fd>();
  data_.run(
      [opened, path = node()] {
        *opened = Fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
        if (!*opened) throw_errno("open " + path, errno);
      },
      deadline, "open " + node());
  if (!sysfs_attached(index_) || sysfs_read(index_, "backend") != identifier_) {
    throw NotFound(node() + " is not attached as " + identifier_);
  }
  const std::lock_guard lock(mutex_);
  device_ = std::move(opened);
}

// An index can keep a limit of whoever had it before (Linux 6.12), and max_part may have found
// partitions in the volume, whose pages nobody would drop.
void KernelDevice::check_queue() const {
  if (sysfs_remembers_write_zeroes(index_)) {
    throw SpoiltIndex("attach " + node() +
                      ": it remembers write-zeroes of an earlier connection; take another index");
  }
  if (!sysfs_partitions(index_).empty()) {
    throw Unsupported("attach " + node() +
                      ": the kernel found partitions in the volume; load the " +
                      "module with max_part=0 (rmmod nbd; modprobe nbd max_part=0)");
  }
}

void KernelDevice::tune(const KernelAttachOptions& options) {
  if (const auto warning = partition_warning()) warnings_.push_back(*warning);
  std::vector<std::pair<std::string, std::int64_t>> settings = {
      {"queue/max_sectors_kb", options.request_kb}, {"queue/read_ahead_kb", options.read_ahead_kb}};
  // The timer of a request. On one connection without request_timeout the driver, when it ends,
  // sends the request again if the connection has been replaced and otherwise goes on waiting; this
  // is the only event at which it looks (nbd_xmit_timeout, Linux 6.1). Attach has set it to 30 s.
  if (connections_ == 1 && options.request_timeout.count() == 0) {
    settings.emplace_back("queue/io_timeout", options.resend.count());
  }
  for (const auto& [file, value] : settings) {
    try {
      sysfs_write(index_, file, std::to_string(value));
    } catch (const Error& error) {
      // Read-only sysfs of a container: slower, not wrong.
      warnings_.push_back(error.what());
    }
  }
}

void KernelDevice::sync(Deadline deadline, const GoOn& go_on) {
  const std::shared_ptr<Fd> fd = device();
  const std::string sentence = "write back the pages of " + node();
  data_.run(
      [fd, lost = lost_write_, stop = leaving_.get_token()] {
        const auto call = [number = fd->get()] {
          return ::fsync(number) == 0 ? "" : std::to_string(errno);
        };
        const std::string error = run_apart(fd->get(), call, stop);
        if (!error.empty()) *lost = std::stoi(error);
      },
      deadline, sentence, go_on);
  if (const int error = lost_write_->exchange(0); error != 0) throw_errno(sentence, error);
}

ExtentList KernelDevice::drop_pages(std::span<const Extent> extents, DirtyPages dirty,
                                    Deadline deadline, const GoOn& go_on) {
  const std::shared_ptr<Fd> fd = device();
  auto kept = std::make_shared<ExtentList>();
  data_.run(
      [fd, kept, dirty, path = node(), pages = whole_pages(extents, size()), method = drop_method_,
       stop = leaving_.get_token()] {
        const auto call = [&] {
          const ExtentList left = zbig::drop_pages(fd->get(), path, pages, method, dirty);
          return std::string(reinterpret_cast<const char*>(left.data()),
                             left.size() * sizeof(Extent));
        };
        const std::string left = run_apart(fd->get(), call, stop);
        kept->resize(left.size() / sizeof(Extent));
        std::memcpy(kept->data(), left.data(), kept->size() * sizeof(Extent));
      },
      deadline, "drop pages of " + node(), go_on);
  return *kept;
}

ExtentList KernelDevice::old_pages(std::span<const Extent> extents, Deadline deadline,
                                   const GoOn& go_on) {
  const std::shared_ptr<Fd> held = device();
  auto old = std::make_shared<ExtentList>();
  data_.run([held, old, path = node(),
             pages = whole_pages(extents, size())] { *old = zbig::old_pages(path, pages); },
            deadline, "look for old pages of " + node(), go_on);
  return *old;
}

bool KernelDevice::claimed(Deadline deadline) {
  const std::shared_ptr<Fd> held = device();
  auto result = std::make_shared<bool>(false);
  // In order with drop_pages, which holds a claim of its own.
  data_.run(
      [held, result, path = node()] {
        const Fd probe(::open(path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
        *result = !probe && errno == EBUSY;
      },
      deadline, "ask who uses " + node());
  return *result;
}

std::vector<Fd> KernelDevice::connect_sockets(const std::string& path, std::uint64_t at_least,
                                              Deadline deadline) {
  std::vector<Fd> sockets;
  std::uint64_t export_size = UINT64_MAX;
  for (unsigned i = 0; i < connections_; ++i) {
    NbdSocket socket = nbd_connect(path, export_name_, deadline);
    if (socket.size < at_least) {
      throw Invalid("connect " + node() + " anew: the export has " + std::to_string(socket.size) +
                    " bytes, and the device needs " + std::to_string(at_least));
    }
    if (!read_only_ && (socket.flags & kNbdReadOnly) != 0) {
      throw Invalid("connect " + node() + " anew: the export is read-only now");
    }
    export_size = std::min(export_size, socket.size);
    sockets.push_back(std::move(socket.fd));
    if ((socket.flags & kNbdMultiConn) == 0) break;
  }
  const std::lock_guard lock(mutex_);
  export_size_ = export_size;
  socket_path_ = path;
  return sockets;
}

// Keeps what the kernel may have taken, and lets go of what has ended.
void KernelDevice::take_sockets(std::vector<Fd> sockets) {
  const std::lock_guard lock(mutex_);
  std::erase_if(sockets_, [](const Fd& fd) {
    pollfd ended = {fd.get(), POLLRDHUP, 0};
    return ::poll(&ended, 1, 0) == 1 && (ended.revents & (POLLHUP | POLLRDHUP | POLLERR)) != 0;
  });
  std::move(sockets.begin(), sockets.end(), std::back_inserter(sockets_));
}

void KernelDevice::reconnect(const std::string& socket_path, Deadline deadline) {
  const std::shared_ptr<Fd> held = device();
  std::vector<Fd> sockets = connect_sockets(socket_path, size(), deadline);
  NbdNetlink().reconfigure(index_, identifier_, std::nullopt, numbers(sockets));
  take_sockets(std::move(sockets));
}

void KernelDevice::cut_connections() {
  const std::lock_guard lock(mutex_);
  for (const Fd& fd : sockets_) ::shutdown(fd.get(), SHUT_RDWR);
}

void KernelDevice::grow(std::uint64_t size, Deadline deadline) {
  const std::shared_ptr<Fd> held = device();
  const std::string sentence = "grow " + node();
  check_size(size, sentence);
  {
    const std::lock_guard lock(mutex_);
    if (size < size_ || size > export_size_) {
      throw Invalid(sentence + ": it has " + std::to_string(size_) + " bytes, and its export " +
                    std::to_string(export_size_) + ", so it cannot have " + std::to_string(size));
    }
  }
  control_.run(
      [held, size, index = index_, identifier = identifier_] {
        NbdNetlink().reconfigure(index, identifier, size, {});
      },
      deadline, sentence);
  const std::lock_guard lock(mutex_);
  size_ = size;
}

void KernelDevice::disconnect(bool cut_first, Deadline deadline) {
  const auto call = [index = index_] { NbdNetlink().disconnect(index); };
  const std::string sentence = "disconnect " + node();
  if (!cut_first) {
    try {
      control_.run(call, std::min(deadline, deadline_in(kPoliteDisconnect)), sentence);
      return;
    } catch (const Unavailable&) {
      // It waits for a lock that a sender to a stuck server holds (K4).
    }
  }
  cut_connections();
  control_.run(call, deadline, sentence + " (if its server is stuck, kill it)");
}

bool KernelDevice::detach(DetachMode mode, Deadline deadline) {
  std::shared_ptr<Fd> held = device();
  const bool force = mode == DetachMode::kForce;
  if (!force) {
    if (claimed(deadline))
      throw Busy("detach " + node() + ": it is mounted or claimed by another program");
    sync(deadline);
  } else {
    const auto left = deadline - steady_clock::now();
    try {
      sync(steady_clock::now() + left / 3);
    } catch (const Error&) {
      // The server is dead or stuck, and what it has not taken is lost: that is what force means.
    }
  }
  disconnect(force, deadline);
  {
    const std::lock_guard lock(mutex_);
    device_.reset();
    sockets_.clear();
  }
  // The last close writes back what is dirty. That fails now, but it may take its time.
  data_.run([last = std::make_shared<std::shared_ptr<Fd>>(std::move(held))] { last->reset(); },
            deadline, "close " + node());
  const Deadline patience = std::min(deadline, deadline_in(milliseconds(500)));
  while (sysfs_attached(index_)) {
    if (steady_clock::now() >= patience) return true;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return false;
}

}  // namespace zbig
