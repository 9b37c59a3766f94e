// SPDX-License-Identifier: BSD-3-Clause
#include "agent/daemon.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "zodb/error.h"

namespace zbig {
namespace {

// The report is a byte, the exit status, and then text for stderr.
[[noreturn]] void wait_for_report(const Fd& pipe) {
  std::string report;
  std::array<char, 4096> buffer;
  while (true) {
    const ssize_t n = ::read(pipe.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    report.append(buffer.data(), static_cast<std::size_t>(n));
  }
  if (report.empty()) report = "\1zbigd: start: it died without a word\n";
  [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, report.data() + 1, report.size() - 1);
  ::_exit(report[0]);
}

}  // namespace

Daemon Daemon::fork_to_background() {
  std::array<int, 2> ends;
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw_errno("make a pipe", errno);
  Fd reader(ends[0]);
  Fd writer(ends[1]);
  const pid_t pid = ::fork();
  if (pid < 0) throw_errno("fork", errno);
  if (pid > 0) {
    writer.reset();
    wait_for_report(reader);
  }
  ::setsid();
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (null) {
    ::dup2(null.get(), STDIN_FILENO);
    ::dup2(null.get(), STDOUT_FILENO);
  }
  Daemon daemon;
  daemon.pipe_ = std::move(writer);
  return daemon;
}

void Daemon::report_ready(const std::string& log_path) {
  if (!pipe_) return;
  const Fd log(::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!log) throw_errno("open " + log_path, errno);
  ::dup2(log.get(), STDERR_FILENO);
  [[maybe_unused]] const ssize_t n = ::write(pipe_.get(), "\0", 1);
  pipe_.reset();
  [[maybe_unused]] const int moved = ::chdir("/");
}

void Daemon::report_failure(int status, const std::string& text) {
  if (!pipe_) {
    [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, text.data(), text.size());
    return;
  }
  const std::string report = static_cast<char>(status) + text;
  [[maybe_unused]] const ssize_t n = ::write(pipe_.get(), report.data(), report.size());
  pipe_.reset();
}

ServiceManager::ServiceManager() {
  const auto take = [](const char* name) {
    const char* value = std::getenv(name);
    std::string text = value == nullptr ? "" : value;
    ::unsetenv(name);
    return text;
  };
  socket_ = take("NOTIFY_SOCKET");
  const std::string pid = take("WATCHDOG_PID");
  const std::string microseconds = take("WATCHDOG_USEC");
  if (!pid.empty() && pid != std::to_string(::getpid())) return;  // meant for another process
  long long value = 0;
  std::from_chars(microseconds.data(), microseconds.data() + microseconds.size(), value);
  if (value > 0) watchdog_ = std::chrono::milliseconds(std::max<long long>(1, value / 1000));
}

// One datagram, and not sd_notify(3), which wants its variable to stay in the environment, where
// servers and mounts would find it.
void ServiceManager::notify(const std::string& message) const noexcept {
  sockaddr_un address = {};
  if (socket_.empty() || socket_.size() >= sizeof address.sun_path) return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket_.data(), socket_.size());
  if (socket_[0] == '@') address.sun_path[0] = '\0';  // an abstract address
  const Fd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  ::sendto(fd.get(), message.data(), message.size(), MSG_NOSIGNAL,
           reinterpret_cast<const sockaddr*>(&address), length);
}

}  // namespace zbig
