// SPDX-License-Identifier: BSD-3-Clause
#include "agent/fuse/worker.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/fuse/message.h"
#include "zodb/error.h"
#include "zodb/error_word.h"

namespace zbig::fuse {
namespace {

constexpr std::size_t kMaxWorkers = 32;
constexpr std::size_t kMaxQuestion = 64u << 10;

// Closes everything else: above all the serving process's FUSE device and connections, and the lock
// that shows whoever started it that it lives.
void close_all_but(std::vector<int> kept) {
  std::sort(kept.begin(), kept.end());
  unsigned next = STDERR_FILENO + 1;
  for (const int fd : kept) {
    if (fd < 0) continue;
    const auto number = static_cast<unsigned>(fd);
    if (number > next) close_range(next, number - 1, 0);
    next = number + 1;
  }
  close_range(next, ~0u, 0);
}

// The serving process takes its signals from a descriptor.
void restore_signals() {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  struct sigaction standard = {};
  standard.sa_handler = SIG_DFL;
  sigaction(SIGCHLD, &standard, nullptr);
}

}  // namespace

Json Worker::ask(const Json& request) const {
  const std::string question = request.dump();
  std::string answer(kMaxQuestion, '\0');
  if (send(line_.get(), question.data(), question.size(), MSG_NOSIGNAL) < 0) {
    throw Unavailable("zbig-fuse has ended");
  }
  const ssize_t size = recv(line_.get(), answer.data(), answer.size(), 0);
  if (size <= 0) throw Unavailable("zbig-fuse has ended");
  const Json reply = Json::parse(answer.begin(), answer.begin() + size);
  if (!reply.at("ok").get<bool>()) {
    throw_error(error_code(reply.at("code").get<std::string>()),
                reply.at("error").get<std::string>());
  }
  return reply;
}

void Worker::watch_line() {
  pollfd wait = {line_.get(), POLLRDHUP, 0};
  while (poll(&wait, 1, -1) < 0 && errno == EINTR) {
  }
  cache_.answer_for_the_dead(idle_);
  _exit(0);
}

// The serving process's end of a worker's line.
class Workers::Line : public EventSource, public std::enable_shared_from_this<Line> {
 public:
  Line(Workers& workers, Fd socket) : workers_(workers), socket_(std::move(socket)) {
    workers_.loop_.add(*this);
  }
  ~Line() override { workers_.loop_.remove(*this); }

  int fd() const override { return socket_.get(); }
  short events() const override { return POLLIN; }
  void on_ready(short) override {
    const std::shared_ptr<Line> self = shared_from_this();
    std::string question(kMaxQuestion, '\0');
    const ssize_t size = recv(socket_.get(), question.data(), question.size(), MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0) {
      workers_.lines_.remove(self);
      return;
    }
    question.resize(static_cast<std::size_t>(size));
    workers_.answer_(Json::parse(question), [line = std::weak_ptr(self)](const Json& reply) {
      if (const auto alive = line.lock()) alive->send_reply(reply.dump());
    });
  }
  void end() { shutdown(socket_.get(), SHUT_WR); }

 private:
  // A worker asks one thing at a time, so there is always room for the answer (W1).
  void send_reply(const std::string& text) {
    if (send(socket_.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
      say("a worker does not take its answer");
    }
  }

  Workers& workers_;
  Fd socket_;
};

Workers::Workers(EventLoop& loop, int shared, Answer answer)
    : loop_(loop), shared_(shared), answer_(std::move(answer)) {}
Workers::~Workers() = default;

std::size_t Workers::count() const { return lines_.size(); }

void Workers::start(int kernel_fd, Fd inherited, const std::function<void(Worker&, Fd)>& work) {
  if (lines_.size() >= kMaxWorkers) throw Busy("too many control connections");
  int ends[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    throw_errno("socket", errno);
  Fd mine(ends[0]);
  Fd workers(ends[1]);
  const pid_t child = fork();
  if (child < 0) throw_errno("fork", errno);
  if (child > 0) {
    lines_.push_back(std::make_shared<Line>(*this, std::move(mine)));
    return;
  }
  try {
    restore_signals();
    Worker worker(std::move(workers), KernelCache(kernel_fd));
    close_all_but({worker.line_.get(), worker.cache_.fd(), inherited.get(), shared_});
    const std::jthread watcher([&worker] { worker.watch_line(); });
    // Ends by _exit, whatever happens: the watcher is not waited for, and nothing of what this
    // process has a copy of is its own to take down.
    try {
      work(worker, std::move(inherited));
    } catch (const std::exception& error) {
      say(error.what());
    }
    _exit(0);
  } catch (const std::exception& error) {
    say(error.what());
    _exit(1);
  }
}

void Workers::finish(std::chrono::milliseconds patience) {
  for (const auto& line : lines_) line->end();
  const Clock::time_point deadline = Clock::now() + patience;
  Alarm alarm(loop_, deadline);
  while (!lines_.empty() && Clock::now() < deadline) loop_.turn();
}

}  // namespace zbig::fuse
