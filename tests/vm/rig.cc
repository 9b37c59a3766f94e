// SPDX-License-Identifier: BSD-3-Clause
#include "tests/vm/rig.h"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/kernel_nbd/handshake.h"
#include "zodb/error.h"

namespace zbig::test {
namespace {

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(what + ": " + std::strerror(errno));
}

sigjmp_buf on_sigbus;
void handle_sigbus(int) { siglongjmp(on_sigbus, 1); }

}  // namespace

Server::Server(std::uint64_t size, bool logged) : logged_(logged) {
  std::string pattern = "/tmp/zbig-vm-XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) fail("mkdtemp");
  folder_ = pattern;
  socket_ = folder_ + "/s";
  file_ = folder_ + "/f";
  log_ = folder_ + "/log";
  backing_ = Fd(::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!backing_) fail(file_);
  resize(size);
  start();
}

Server::~Server() {
  kill();
  std::filesystem::remove_all(folder_);
}

void Server::start() {
  std::filesystem::remove(socket_);
  pid_ = ::fork();
  if (pid_ == 0) {
    const std::string filter = logged_ ? "--filter=log " : "";
    const std::string parameters = logged_ ? " logfile=" + log_ + " logappend=1" : "";
    const std::string line =
        "exec nbdkit -U " + socket_ + " -f " + filter + "file " + file_ + parameters;
    ::execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
    ::_exit(127);
  }
  // The socket is there before anybody listens to it.
  for (const Deadline deadline = deadline_in(std::chrono::seconds(20));;) {
    try {
      nbd_connect(socket_, "", deadline);
      return;
    } catch (const Unavailable&) {
      if (std::chrono::steady_clock::now() >= deadline) throw;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
}

void Server::kill() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void Server::freeze() {
  ::kill(pid_, SIGSTOP);
  int status = 0;
  ::waitpid(pid_, &status, WUNTRACED);
}

void Server::thaw() { ::kill(pid_, SIGCONT); }

void Server::resize(std::uint64_t size) {
  if (::ftruncate(backing_.get(), static_cast<off_t>(size)) != 0) fail(file_);
}

void Server::put(std::uint64_t offset, char byte, std::uint64_t length) {
  const std::string bytes(length, byte);
  if (::pwrite(backing_.get(), bytes.data(), length, static_cast<off_t>(offset)) !=
      static_cast<ssize_t>(length)) {
    fail(file_);
  }
}

char Server::get(std::uint64_t offset) const {
  char byte = 0;
  if (::pread(backing_.get(), &byte, 1, static_cast<off_t>(offset)) != 1) fail(file_);
  return byte;
}

int Server::requests(const std::string& kind) const {
  std::ifstream log(log_);
  int count = 0;
  for (std::string line; std::getline(log, line);) {
    if (line.find(" " + kind + " id=") != std::string::npos) ++count;
  }
  return count;
}

Mapper::Mapper(const std::string& node, Access access, std::uint64_t size) {
  std::array<int, 2> commands = {}, answers = {};
  if (::pipe2(commands.data(), O_CLOEXEC) != 0 || ::pipe2(answers.data(), O_CLOEXEC) != 0) {
    fail("pipe");
  }
  pid_ = ::fork();
  if (pid_ == 0) {
    // All that was inherited goes, or this process would hold other devices.
    for (int fd = 3; fd < 1024; ++fd) {
      if (fd != commands[0] && fd != answers[1]) ::close(fd);
    }
    serve(node, access, size, commands[0], answers[1]);
    ::_exit(0);
  }
  ::close(commands[0]);
  ::close(answers[1]);
  to_ = Fd(commands[1]);
  from_ = Fd(answers[0]);
  char ready = 0;
  if (::read(from_.get(), &ready, 1) != 1 || ready != 'R') throw std::runtime_error("map " + node);
}

Mapper::~Mapper() {
  to_.reset();
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void Mapper::serve(const std::string& node, Access access, std::uint64_t size, int in, int out) {
  const bool writable = access == Access::kWritable;
  const int fd = ::open(node.c_str(), writable ? O_RDWR : O_RDONLY);
  void* mapped = fd < 0 ? MAP_FAILED
                        : ::mmap(nullptr, size, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                                 MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) return;
  // As programs do: the mapping alone keeps the device.
  ::close(fd);
  if (access == Access::kLocked && ::mlock(mapped, size) != 0) return;
  volatile char* bytes = static_cast<char*>(mapped);
  struct sigaction action {};
  action.sa_handler = handle_sigbus;
  ::sigaction(SIGBUS, &action, nullptr);
  std::array<char, 2> answer = {'R', 0};
  (void)!::write(out, answer.data(), 1);
  Command command = {};
  while (::read(in, &command, sizeof command) == sizeof command) {
    if (sigsetjmp(on_sigbus, 1) != 0) {
      answer = {'B', 0};
    } else if (command.what == 'L') {
      answer = {'K', bytes[command.offset]};
    } else {
      for (std::uint64_t i = 0; i < command.length; i += kPageSize) {
        bytes[command.offset + i] = command.byte;
      }
      answer = {'K', 0};
    }
    if (::write(out, answer.data(), 2) != 2) return;
  }
}

char Mapper::ask(const Command& command, char* byte) {
  std::array<char, 2> answer = {};
  if (::write(to_.get(), &command, sizeof command) != sizeof command ||
      ::read(from_.get(), answer.data(), 2) != 2) {
    fail("ask a mapping process");
  }
  if (byte != nullptr) *byte = answer[1];
  return answer[0];
}

std::optional<char> Mapper::load(std::uint64_t offset) {
  char byte = 0;
  if (ask({'L', 0, offset, 0}, &byte) != 'K') return std::nullopt;
  return byte;
}

bool Mapper::store(std::uint64_t offset, char byte) { return store_all(offset, 1, byte); }

bool Mapper::store_all(std::uint64_t offset, std::uint64_t length, char byte) {
  return ask({'S', byte, offset, length}, nullptr) == 'K';
}

KernelAttachOptions options_for(const Server& server, const std::string& name) {
  KernelAttachOptions options;
  options.socket_path = server.socket();
  options.identifier = device_identifier(name, "1");
  options.deadline = deadline_in(std::chrono::seconds(10));
  return options;
}

int shell(const std::string& command) {
  const int status = std::system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

int attached_devices() {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/block")) {
    if (entry.path().filename().string().starts_with("nbd") &&
        std::filesystem::exists(entry.path() / "pid")) {
      ++count;
    }
  }
  return count;
}

int open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<int>(std::distance(begin(all), end(all)));
}

}  // namespace zbig::test
