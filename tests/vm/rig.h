// SPDX-License-Identifier: BSD-3-Clause
//
// What the tests of the kernel device share: a server that can be killed and frozen, and processes
// that know nothing of zbig and have the device mapped.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <sys/types.h>

#include "agent/fd.h"
#include "agent/kernel_nbd/device.h"

namespace zbig::test {

// nbdkit's file plugin over a file that a test may change behind the kernel's back.
class Server {
 public:
  // `logged`: requests() can be asked, and everything is slower.
  explicit Server(std::uint64_t size, bool logged = false);
  ~Server();
  void start();
  void kill();  // SIGKILL, and gone
  void freeze();
  void thaw();
  void resize(std::uint64_t size);  // for connections made from now on
  void put(std::uint64_t offset, char byte, std::uint64_t length = kPageSize);
  char get(std::uint64_t offset) const;
  const std::string& socket() const { return socket_; }
  // Requests that it got, as the filter log names them ("Trim", "Zero", "Write", "Flush", "Read").
  int requests(const std::string& kind) const;

 private:
  std::string folder_, socket_, file_, log_;
  const bool logged_;
  Fd backing_;
  pid_t pid_ = -1;
};

// A process that has the device mapped.
class Mapper {
 public:
  enum class Access { kReadOnly, kWritable, kLocked };
  Mapper(const std::string& node, Access access, std::uint64_t size);
  ~Mapper();
  // The byte there, or nothing: the process got SIGBUS.
  std::optional<char> load(std::uint64_t offset);
  bool store(std::uint64_t offset, char byte);
  // Stores into every page of [offset, offset + length).
  bool store_all(std::uint64_t offset, std::uint64_t length, char byte);

 private:
  struct Command {
    char what, byte;
    std::uint64_t offset, length;
  };
  char ask(const Command& command, char* byte);
  static void serve(const std::string& node, Access access, std::uint64_t size, int in, int out);
  Fd to_, from_;
  pid_t pid_ = -1;
};

// Options with which every test attaches; the deadline is 10 s from now.
KernelAttachOptions options_for(const Server& server, const std::string& name);

// Runs a shell command line; its exit status.
int shell(const std::string& command);

// The devices that sysfs says are attached.
int attached_devices();
int open_descriptors();

}  // namespace zbig::test
