// SPDX-License-Identifier: BSD-3-Clause
#include "agent/kernel_nbd/errand.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <mutex>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "zodb/error.h"
#include "zodb/error_word.h"

namespace zbig {
namespace {

constexpr int kLookAtStopMs = 20;

// E2.
class LeftBehind {
 public:
  void add(pid_t child) {
    const std::lock_guard lock(mutex_);
    children_.push_back(child);
  }
  void bury() {
    const std::lock_guard lock(mutex_);
    std::erase_if(children_, [](pid_t child) { return ::waitpid(child, nullptr, WNOHANG) != 0; });
  }

 private:
  std::mutex mutex_;
  std::vector<pid_t> children_;  // guarded by mutex_
};
LeftBehind& left_behind() {
  static LeftBehind all;
  return all;
}

struct Pipe {
  Fd read;
  Fd write;
};
Pipe make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw_errno("make a pipe", errno);
  return {Fd(ends[0]), Fd(ends[1])};
}

// E1. In the child.
void close_all_but(int a, int b) {
  unsigned first = 3;
  for (const int kept : {std::min(a, b), std::max(a, b)}) {
    const auto number = static_cast<unsigned>(kept);
    if (number > first) ::close_range(first, number - 1, 0);
    first = std::max(first, number + 1);
  }
  ::close_range(first, ~0U, 0);
}

// Runs `work` in a child with two of our descriptors.
template <class Work>
pid_t start_child(int fd, int pipe, Work work) {
  left_behind().bury();
  const pid_t child = ::fork();
  if (child < 0) throw_errno("start a process", errno);
  if (child > 0) return child;
  close_all_but(fd, pipe);
  ::prctl(PR_SET_NAME, "zbigd-errand");
  work();
  ::_exit(0);
}

std::string outcome_of(const std::function<std::string()>& call) {
  try {
    return "+" + call();
  } catch (const Error& error) {
    return "-" + std::string(1, static_cast<char>(error.code())) + error.what();
  } catch (const std::exception& error) {
    return "-" + std::string(1, static_cast<char>(ErrorCode::kFailed)) + error.what();
  }
}

void write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t done = ::write(fd, text.data(), text.size());
    if (done <= 0 && errno != EINTR) return;
    if (done > 0) text.remove_prefix(static_cast<std::size_t>(done));
  }
}

}  // namespace

std::string run_apart(int fd, const std::function<std::string()>& call,
                      const std::stop_token& stop) {
  Pipe pipe = make_pipe();
  const pid_t child =
      start_child(fd, pipe.write.get(), [&] { write_all(pipe.write.get(), outcome_of(call)); });
  pipe.write = Fd();
  std::string outcome;
  std::array<char, 65536> buffer;
  for (;;) {
    pollfd item = {pipe.read.get(), POLLIN, 0};
    if (::poll(&item, 1, kLookAtStopMs) <= 0) {
      if (!stop.stop_requested()) continue;
      left_behind().add(child);
      throw Unavailable("given up");
    }
    const ssize_t got = ::read(pipe.read.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    outcome.append(buffer.data(), static_cast<std::size_t>(got));
  }
  ::waitpid(child, nullptr, 0);
  if (outcome.starts_with('+')) return outcome.substr(1);
  if (outcome.size() < 2) throw Failed("a process that made a call ended before it had an answer");
  throw_error(static_cast<ErrorCode>(outcome[1]), outcome.substr(2));
}

Fd close_apart(int fd) {
  Pipe pipe = make_pipe();
  const pid_t child = start_child(fd, pipe.read.get(), [&] {
    char byte = 0;
    while (::read(pipe.read.get(), &byte, 1) < 0 && errno == EINTR) {
    }
  });
  left_behind().add(child);
  return std::move(pipe.write);
}

}  // namespace zbig
