// SPDX-License-Identifier: BSD-3-Clause
#include "agent/kernel_nbd/drop_probe.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include <endian.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/fd.h"
#include "agent/kernel_nbd/handshake.h"
#include "agent/kernel_nbd/netlink.h"
#include "agent/kernel_nbd/node.h"
#include "zodb/error.h"

namespace zbig {
namespace {

constexpr std::size_t kDeviceSize = 16 * kPageSize;
constexpr std::uint32_t kRequestMagic = 0x25609513;
constexpr std::uint32_t kReplyMagic = 0x67446698;

struct Request {  // big-endian, NBD's transmission phase
  std::uint32_t magic, type;
  std::uint64_t cookie, offset;
  std::uint32_t length;
} __attribute__((packed));
struct Reply {
  std::uint32_t magic, error;
  std::uint64_t cookie;
} __attribute__((packed));

// A server every byte of which is the number last set, except pages that were written to.
class TinyServer {
 public:
  TinyServer() {
    fill(1);
    std::array<int, 2> ends = {};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) {
      throw_errno("make a socket pair", errno);
    }
    kernel_end_ = Fd(ends[0]);
    own_end_ = Fd(ends[1]);
    thread_ = std::jthread([this] { serve(); });
  }
  ~TinyServer() { stop(); }
  void stop() { ::shutdown(own_end_.get(), SHUT_RDWR); }
  int kernel_end() const { return kernel_end_.get(); }
  void fill(unsigned char byte) {
    for (auto& at : pages_) at.store(byte);
  }
  bool was_asked_to_zero() const { return zeroed_; }

 private:
  bool transfer(void* data, std::size_t length, bool out) {
    for (auto* at = static_cast<char*>(data); length > 0;) {
      const ssize_t n = out ? ::send(own_end_.get(), at, length, MSG_NOSIGNAL)
                            : ::recv(own_end_.get(), at, length, 0);
      if (n <= 0) return false;
      at += n;
      length -= static_cast<std::size_t>(n);
    }
    return true;
  }
  void serve() {
    enum { kRead = 0, kWrite = 1, kDisconnect = 2, kFlush = 3 };
    Request request = {};
    std::vector<unsigned char> data;
    while (transfer(&request, sizeof request, false) && be32toh(request.magic) == kRequestMagic) {
      const std::uint32_t type = be32toh(request.type) & 0xffff;
      const std::uint64_t offset = be64toh(request.offset);
      const std::uint32_t length = be32toh(request.length);
      if (type == kDisconnect) return;
      if (offset > kDeviceSize || length > kDeviceSize - offset) return;
      data.assign(type == kRead || type == kWrite ? length : 0, 0);
      if (type == kWrite && !transfer(data.data(), data.size(), false)) return;
      if (type > kFlush) zeroed_ = true;
      for (std::size_t i = 0; i < data.size(); ++i) {
        if (type == kWrite) pages_[offset + i].store(data[i]);
        if (type == kRead) data[i] = pages_[offset + i].load();
      }
      Reply reply = {htobe32(kReplyMagic), htobe32(type > kFlush ? EINVAL : 0), request.cookie};
      if (!transfer(&reply, sizeof reply, true)) return;
      if (type == kRead && !transfer(data.data(), data.size(), true)) return;
    }
  }

  Fd kernel_end_, own_end_;
  std::array<std::atomic<unsigned char>, kDeviceSize> pages_;
  std::atomic<bool> zeroed_ = false;
  std::jthread thread_;
};

// A page of the device, mapped. Bytes are moved by system calls, which say EFAULT where a load or a
// store of ours would be a SIGBUS.
class MappedPages {
 public:
  MappedPages(const std::string& node, bool read_only) {
    // A read-only device can be mapped only through a descriptor that could not write.
    const Fd device(::open(node.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC));
    if (!device) throw_errno("open " + node, errno);
    std::array<int, 2> ends = {};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw_errno("make a pipe", errno);
    read_end_ = Fd(ends[0]);
    write_end_ = Fd(ends[1]);
    memory_ = ::mmap(nullptr, kDeviceSize, read_only ? PROT_READ : PROT_READ | PROT_WRITE,
                     MAP_SHARED, device.get(), 0);
    if (memory_ == MAP_FAILED) throw_errno("map a device", errno);
  }
  MappedPages(const MappedPages&) = delete;
  MappedPages& operator=(const MappedPages&) = delete;
  ~MappedPages() { ::munmap(memory_, kDeviceSize); }

  int load(std::uint64_t page) {
    unsigned char byte = 0;
    if (::write(write_end_.get(), at(page), 1) != 1) return -1;
    return ::read(read_end_.get(), &byte, 1) == 1 ? byte : -1;
  }
  void store(std::uint64_t page, unsigned char byte) {
    if (::write(write_end_.get(), &byte, 1) != 1 || ::read(read_end_.get(), at(page), 1) != 1) {
      throw_errno("store into a mapped page", errno);
    }
  }

 private:
  char* at(std::uint64_t page) { return static_cast<char*>(memory_) + page * kPageSize; }
  Fd read_end_, write_end_;
  void* memory_ = MAP_FAILED;
};

bool try_method(TinyServer& server, const std::string& node, DropMethod method, bool read_only) {
  const Fd device(::open(node.c_str(), O_RDWR | O_CLOEXEC));
  if (!device) throw_errno("open " + node, errno);
  MappedPages pages(node, read_only);
  if (pages.load(0) != 1 || pages.load(1) != 1) return false;
  if (!read_only) pages.store(1, 9);
  server.fill(2);
  const ExtentList all = {{0, kDeviceSize}};
  ExtentList expected;
  if (!read_only) expected.push_back({kPageSize, kPageSize});
  if (drop_pages(device.get(), node, all, method, DirtyPages::kKeep) != expected) return false;
  if (pages.load(0) != 2 || pages.load(1) != (read_only ? 2 : 9)) return false;
  if (!read_only) {
    server.fill(3);
    if (!drop_pages(device.get(), node, all, method, DirtyPages::kDiscard).empty()) return false;
    // The kernel may have written the page back by itself in between, then it has survived.
    if (pages.load(0) != 3 || (pages.load(1) != 3 && pages.load(1) != 9)) return false;
  }
  return method == DropMethod::kDiscard || !server.was_asked_to_zero();
}

}  // namespace

bool drop_method_works(DropMethod method, bool read_only, Deadline deadline) {
  if (method == DropMethod::kNone) return false;
  NbdNetlink netlink;
  auto server = std::make_shared<TinyServer>();
  int flags = kNbdHasFlags | kNbdFlush;
  if (read_only) flags |= kNbdReadOnly;
  if (method == DropMethod::kDiscard) flags |= kNbdTrim;
  const std::array<int, 1> sockets = {server->kernel_end()};
  const std::uint32_t index =
      netlink.connect({.index = std::nullopt,
                       .size = kDeviceSize,
                       .server_flags = static_cast<std::uint16_t>(flags),

                       .request_timeout = {},
                       .dead_connection_timeout = {},
                       .identifier = "zbig-probe:" + std::to_string(::getpid()),
                       .sockets = sockets});
  auto works = std::make_shared<bool>(false);
  Worker worker;
  try {
    ensure_node(index, deadline);
    worker.run([=] { *works = try_method(*server, node_path(index), method, read_only); }, deadline,
               "try how pages are dropped");
  } catch (const Error&) {
    *works = false;
  }
  server->stop();
  netlink.disconnect(index);
  return *works;
}

DropProbe probe_drop_methods(Deadline deadline) {
  const auto first = [&](std::initializer_list<DropMethod> methods, bool read_only) {
    for (const DropMethod method : methods) {
      if (drop_method_works(method, read_only, deadline)) return method;
    }
    return DropMethod::kNone;
  };
  return {first({DropMethod::kPunchHole, DropMethod::kDiscard}, false),
          first({DropMethod::kPunchHole}, true)};
}

}  // namespace zbig
