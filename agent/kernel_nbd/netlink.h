// SPDX-License-Identifier: BSD-3-Clause
//
// The generic netlink family "nbd" (linux/nbd-netlink.h): the only way to attach a device that
// needs no process of its own, waits for a new server, and says so when a connection dies.
//
// Needs CAP_SYS_ADMIN in the initial network namespace.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

struct nl_sock;

namespace zbig {

struct NlSocketFree {
  void operator()(nl_sock* socket) const;
};

struct NbdConnect {
  std::optional<std::uint32_t> index;
  std::uint64_t size = 0;
  std::uint16_t server_flags = 0;
  std::chrono::seconds request_timeout{0};
  std::chrono::seconds dead_connection_timeout{0};
  std::string identifier;
  std::span<const int> sockets;  // in transmission phase
};

// One thread at a time. The calls do not return before the kernel has done the work.
class NbdNetlink {
 public:
  // Unsupported: the kernel has no nbd, also after an attempt to load the module; or no netlink.
  NbdNetlink();

  // The index of the device. Busy: it is in use.
  std::uint32_t connect(const NbdConnect& what);

  // Gives the device a new size and (or) sockets in place of dead ones; sockets that replace none
  // are dropped by the kernel without a word. Invalid: the identifier is not that of the device.
  void reconfigure(std::uint32_t index, const std::string& identifier,
                   std::optional<std::uint64_t> size, std::span<const int> sockets);

  // Whoever's device it is. Fine if it is not connected.
  void disconnect(std::uint32_t index);

 private:
  std::unique_ptr<nl_sock, NlSocketFree> socket_;
  int family_ = 0;
};

// Tells of connections that died without having been told to. One message per connection.
class LinkMonitor {
 public:
  LinkMonitor();
  int fd() const;  // readable when there is something to read
  // The index of a device that lost a connection; nothing if there is none to tell. If the kernel
  // dropped messages because nobody read: kAll, every device may have lost connections.
  static constexpr std::uint32_t kAll = 0xffffffff;
  std::optional<std::uint32_t> read();

 private:
  std::unique_ptr<nl_sock, NlSocketFree> socket_;
};

}  // namespace zbig
