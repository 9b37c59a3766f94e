// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "bigfile/extent.h"

// A client connection to one export of a server, by libnbd. Every wait has a deadline; past it, or
// when the server goes away, the connection is of no more use.
//
// Threads: one at a time.

struct nbd_handle;

namespace zbig {

class NbdConnection {
 public:
  // Throws Unavailable if the server is not there, NotFound if it does not serve the export.
  NbdConnection(const std::string& socket_path, const std::string& export_name);
  ~NbdConnection();
  NbdConnection(const NbdConnection&) = delete;
  NbdConnection& operator=(const NbdConnection&) = delete;

  const std::string& export_name() const { return export_name_; }
  std::uint64_t size() const { return size_; }
  // Whether nothing has come from the server unasked: at rest, and not cut.
  bool quiet() const;

  // The parts of the export that its block status calls data.
  ExtentList data_extents();

  // Reads now, and waits for it. Throws Failed for an error of the server (it has told its log).
  void read(std::uint64_t offset, std::span<std::byte> out);

  // Sends a read and returns. `done(errno or 0)` runs inside poll(), on its thread; `out` must live
  // until then.
  void start_read(std::uint64_t offset, std::span<std::byte> out, std::function<void(int)> done);
  // Sends and receives what there is, waiting until something moves, `wake_fd` becomes readable, or
  // the timeout. Throws Unavailable if the server went away.
  void poll(int wake_fd, std::chrono::milliseconds timeout);

 private:
  struct Closer {
    void operator()(nbd_handle* handle) const;
  };
  [[noreturn]] void fail(const std::string& what);
  void wait_until(const std::function<bool()>& done, const std::string& what);

  std::string export_name_;
  std::string place_;  // for messages
  std::unique_ptr<nbd_handle, Closer> handle_;
  std::uint64_t size_ = 0;
};

// "nbd+unix:///EXPORT?socket=PATH", with what needs it percent-encoded.
std::string nbd_uri(const std::string& socket_path, const std::string& export_name);

}  // namespace zbig
