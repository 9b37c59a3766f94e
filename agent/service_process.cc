// SPDX-License-Identifier: BSD-3-Clause
#include "agent/service_process.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <random>
#include <sstream>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "agent/files.h"
#include "zodb/error.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;

Fd open_pidfd(pid_t pid) { return Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))); }

bool ended_within(int pidfd, milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    const auto left =
        std::chrono::duration_cast<milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd item{.fd = pidfd, .events = POLLIN, .revents = 0};
    const int n = ::poll(&item, 1, static_cast<int>(std::max<long>(0, left.count())));
    if (n > 0) return true;
    if (n == 0) return false;
  }
}

bool scopes_wanted = false;

// systemd-run registers its own process as the scope and becomes the command: pid, session and
// descriptors, the lock among them, are the same as without it. A scope's name must be new: that of
// a server that has just died may be known for a moment still.
std::vector<std::string> in_scope(std::span<const std::string> command) {
  std::string program = command[0].substr(command[0].rfind('/') + 1);
  if (!program.starts_with("zbig-")) program = "zbig-" + program;
  std::random_device random;
  std::ostringstream name;
  name << program << '-' << std::hex << random() << random();
  std::vector<std::string> words = {"systemd-run", "--scope", "--quiet", "--unit=" + name.str()};
  if (::geteuid() == 0) {
    words.emplace_back("--slice=system-zbig.slice");
  } else {
    words.emplace_back("--user");
  }
  words.emplace_back("--");
  words.insert(words.end(), command.begin(), command.end());
  return words;
}

std::vector<char*> pointers_to(std::span<const std::string> command) {
  std::vector<char*> result;
  for (const std::string& word : command) result.push_back(const_cast<char*>(word.c_str()));
  result.push_back(nullptr);
  return result;
}

// In a child between fork and exec: only what is safe in a copy of a process with threads.

void reset_signals() {
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int signal : {SIGPIPE, SIGINT, SIGTERM, SIGHUP}) ::signal(signal, SIG_DFL);
}

std::size_t print_decimal(char* out, pid_t number) {
  std::array<char, 16> digits;
  std::size_t n = 0;
  for (auto rest = static_cast<unsigned>(number); n == 0 || rest > 0; rest /= 10) {
    digits[n++] = static_cast<char>('0' + rest % 10);
  }
  for (std::size_t i = 0; i < n; ++i) out[i] = digits[n - 1 - i];
  return n;
}

[[noreturn]] void become(char* const* command) {
  ::execvp(command[0], command);
  constexpr std::string_view text = ": cannot be executed\n";
  const std::size_t length = std::char_traits<char>::length(command[0]);
  [[maybe_unused]] ssize_t n = ::write(STDERR_FILENO, command[0], length);
  n = ::write(STDERR_FILENO, text.data(), text.size());
  ::_exit(127);
}

}  // namespace

std::optional<ServiceProcess> ServiceProcess::find(const std::string& lock_path) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    if (try_lock_file(lock_path)) return std::nullopt;
    const std::string text = read_small_file(lock_path, 4096);
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), pid);
    if (error == std::errc() && pid > 0 && *end == '\n') {
      Fd pidfd = open_pidfd(pid);
      // The pid cannot have become another's while the lock is held: check again after opening.
      if (pidfd && !try_lock_file(lock_path)) return ServiceProcess(pid, std::move(pidfd));
    }
    std::this_thread::sleep_for(milliseconds(10));
  }
  throw Busy(lock_path + " is locked by a process that does not tell its number");
}

void ServiceProcess::use_scopes() { scopes_wanted = true; }

ServiceProcess ServiceProcess::start(const std::string& lock_path,
                                     std::span<const std::string> command,
                                     const std::string& log_path) {
  const Fd lock = try_lock_file(lock_path);
  if (!lock) throw Busy(lock_path + " is locked by another process");
  const Fd log(::open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!log) throw_errno("open " + log_path, errno);
  const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!null) throw_errno("open /dev/null", errno);
  if (::ftruncate(lock.get(), 0) != 0) throw_errno("write " + lock_path, errno);
  const std::vector<std::string> line =
      scopes_wanted ? in_scope(command) : std::vector<std::string>(command.begin(), command.end());
  const std::vector<char*> words = pointers_to(line);

  // Two forks, and the program is started when the process between is gone: it is init's child
  // then. nbdkit 1.32 asks the kernel for a SIGTERM when the *thread* that is its parent ends
  // (PR_SET_PDEATHSIG), and ours end with each request.
  std::array<int, 2> tell;
  std::array<int, 2> go;
  if (::pipe2(tell.data(), O_CLOEXEC) != 0) throw_errno("make a pipe", errno);
  const Fd tell_reader(tell[0]);
  Fd tell_writer(tell[1]);
  if (::pipe2(go.data(), O_CLOEXEC) != 0) throw_errno("make a pipe", errno);
  Fd go_reader(go[0]);
  const Fd go_writer(go[1]);

  const pid_t between = ::fork();
  if (between < 0) throw_errno("start " + command[0], errno);
  if (between == 0) {
    ::setsid();
    const pid_t pid = ::fork();
    if (pid != 0) {
      const bool told = pid > 0 && ::write(tell_writer.get(), &pid, sizeof pid) == sizeof pid;
      ::_exit(told ? 0 : 1);
    }
    reset_signals();
    std::array<char, 17> note;
    const std::size_t n = print_decimal(note.data(), ::getpid());
    note[n] = '\n';
    if (::pwrite(lock.get(), note.data(), n + 1, 0) < 0) ::_exit(126);
    ::close(go_writer.get());
    char ready = 0;
    if (::read(go_reader.get(), &ready, 1) != 1) ::_exit(126);  // the agent died meanwhile
    ::fcntl(lock.get(), F_SETFD, 0);                            // keeps the lock across exec
    ::dup2(null.get(), STDIN_FILENO);
    ::dup2(log.get(), STDOUT_FILENO);
    ::dup2(log.get(), STDERR_FILENO);
    become(words.data());
  }
  tell_writer.reset();
  go_reader.reset();
  pid_t pid = 0;
  const bool told = ::read(tell_reader.get(), &pid, sizeof pid) == sizeof pid;
  while (::waitpid(between, nullptr, 0) < 0 && errno == EINTR) {
  }
  if (!told) throw Failed("start " + command[0] + ": no process could be made");
  Fd pidfd = open_pidfd(pid);  // it waits for our word, so it is that one
  if (!pidfd) throw_errno("watch process " + std::to_string(pid), errno);
  if (::write(go_writer.get(), "", 1) != 1) throw_errno("start " + command[0], errno);
  return ServiceProcess(pid, std::move(pidfd));
}

bool ServiceProcess::alive() const { return !ended_within(pidfd(), milliseconds(0)); }

bool ServiceProcess::wait_end(milliseconds timeout) const { return ended_within(pidfd(), timeout); }

void ServiceProcess::kill() const {
  ::syscall(SYS_pidfd_send_signal, pidfd(), SIGKILL, nullptr, 0);
}

bool ServiceProcess::stop(milliseconds patience) const {
  ::syscall(SYS_pidfd_send_signal, pidfd(), SIGTERM, nullptr, 0);
  if (wait_end(patience)) return true;
  kill();
  return wait_end(milliseconds(5000));
}

std::string last_line_of(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return {};
  constexpr off_t kTail = 4096;
  const off_t size = ::lseek(fd.get(), 0, SEEK_END);
  std::string text(static_cast<std::size_t>(kTail), '\0');
  const ssize_t n = ::pread(fd.get(), text.data(), text.size(), std::max<off_t>(0, size - kTail));
  if (n <= 0) return {};
  text.resize(static_cast<std::size_t>(n));
  while (text.ends_with('\n')) text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

}  // namespace zbig
