// SPDX-License-Identifier: BSD-3-Clause
#include "agent/fuse/service.h"

#include <cerrno>
#include <csignal>
#include <utility>

#include <nlohmann/json.hpp>
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "agent/fuse/kernel_file.h"
#include "agent/fuse/message.h"
#include "agent/fuse/mount_point.h"
#include "agent/fuse/turn.h"
#include "zodb/error.h"
#include "zodb/error_word.h"

namespace zbig::fuse {
namespace {

using std::chrono::seconds;

constexpr seconds kConnectPatience{10};
constexpr seconds kGoodbyePatience{5};
constexpr seconds kWorkersPatience{2};

Json failure(const Error& error) {
  return {{"ok", false}, {"code", error_word(error.code())}, {"error", error.what()}};
}

}  // namespace

// SIGTERM and SIGINT as something to wait for; SIGPIPE not at all.
class Service::Signals : public EventSource {
 public:
  Signals(EventLoop& loop, std::function<void()> stop) : loop_(loop), stop_(std::move(stop)) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    struct sigaction ignore = {};
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &ignore, nullptr);
    fd_ = Fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!fd_) throw_errno("signalfd", errno);
    loop_.add(*this);
  }
  ~Signals() override { loop_.remove(*this); }

  int fd() const override { return fd_.get(); }
  short events() const override { return POLLIN; }
  void on_ready(short) override {
    signalfd_siginfo info;
    while (read(fd_.get(), &info, sizeof info) == sizeof info) stop_();
  }

 private:
  EventLoop& loop_;
  std::function<void()> stop_;
  Fd fd_;
};

Service::Service(Options options)
    : options_(std::move(options)),
      server_(loop_, {.uri = options_.uri,
                      .connections = options_.connections,
                      .dead_timeout = options_.dead_timeout,
                      .read_only = options_.read_only}),
      turns_(Turn::make_file()),
      facts_({.path = options_.path,
              .uri = options_.uri,
              .read_only = options_.read_only,
              .turns = turns_.get()}),
      workers_(loop_, turns_.get(), [this](const Json& question, const Workers::Reply& reply) {
        answer(question, reply);
      }) {}

Service::~Service() { take_down(); }

void Service::run(const std::function<void()>& ready) {
  start_up();
  while (device_->alive() && !leaving_ && !mounted_ && !failure_) loop_.turn();
  if (failure_) throw Failed(*failure_);
  if (!mounted_ && !leaving_) {
    throw Failed("mount at " + options_.path + " ended at once: " + DeviceFile::last_complaint());
  }
  if (mounted_) ready();
  while (device_->alive() && !leaving_) loop_.turn();
}

void Service::start_up() {
  facts_.pid = getpid();
  signals_ = std::make_unique<Signals>(loop_, [this] { stop(); });
  if (!options_.control.empty()) {
    control_ = std::make_unique<ControlListener>(loop_, options_.control,
                                                 [this](Fd client) { serve(std::move(client)); });
  }
  const ExportInfo info = server_.connect(kConnectPatience);
  made_path_ = prepare_mount_point(options_.path);
  device_ = std::make_unique<DeviceFile>(loop_, server_,
                                         DeviceFile::Settings{.path = options_.path,
                                                              .read_only = options_.read_only,
                                                              .allow_other = options_.allow_other,
                                                              .mode = options_.mode},
                                         info, [this] { restore_size(); });
  device_->mount();
  // From here on children end without anybody asking how. (libfuse and fusermount3 are done.)
  struct sigaction bury = {};
  bury.sa_handler = SIG_DFL;
  bury.sa_flags = SA_NOCLDWAIT;
  sigaction(SIGCHLD, &bury, nullptr);
  workers_.start(device_->kernel_fd(), Fd(), [this](Worker& worker, const Fd&) {
    try {
      const dev_t device = device_of(facts_.path);
      tune_kernel(device, options_.read_ahead_kb);
      make_kernel_take_size(facts_.path, device, device_->size());
      worker.ask({{"op", "mounted"}, {"device", device}});
    } catch (const std::exception& error) {
      worker.ask({{"op", "mount_failed"}, {"why", error.what()}});
    }
  });
}

void Service::answer(const Json& question, const Workers::Reply& reply) {
  try {
    const std::string op = question.at("op").get<std::string>();
    if (op == "status") return reply(status());
    if (op == "resize") return resize(question.at("size").get<std::uint64_t>(), reply);
    if (op == "mounted") {
      facts_.device = question.at("device").get<dev_t>();
      mounted_ = true;
    } else if (op == "mount_failed") {
      failure_ = question.at("why").get<std::string>();
    } else if (op == "size_restored") {
      restoring_size_ = false;
      if (size_is_wrong_) restore_size();
    } else if (op == "leave") {
      leaving_ = true;
    }
    reply({{"ok", true}});
  } catch (const Error& error) {
    reply(failure(error));
  }
}

void Service::resize(std::uint64_t size, const Workers::Reply& reply) {
  if (size == 0) throw Invalid("a device of no bytes");
  if (size <= device_->size()) {
    // What the server has beyond does no harm.
    device_->set_size(size);
    server_.set_size(size);
    return reply({{"ok", true}});
  }
  server_.reopen([this, size, reply](std::optional<std::uint64_t> has) {
    if (!has) return reply(failure(Unavailable("the server is away")));
    if (*has < size) {
      return reply(failure(Invalid("the server says that the export has " + std::to_string(*has) +
                                   " bytes, not " + std::to_string(size))));
    }
    device_->set_size(size);
    server_.set_size(size);
    reply({{"ok", true}});
  });
}

// device_file.h, D2.
void Service::restore_size() {
  size_is_wrong_ = true;
  if (restoring_size_ || leaving_) return;
  restoring_size_ = true;
  size_is_wrong_ = false;
  try {
    workers_.start(device_->kernel_fd(), Fd(), [this](Worker& worker, const Fd&) {
      try {
        make_kernel_take_size(facts_.path, facts_.device, device_->size());
      } catch (const std::exception&) {
        // Somebody wrote past the end again meanwhile; when that is written back, so will we.
      }
      worker.ask({{"op", "size_restored"}});
    });
  } catch (const Error& error) {
    restoring_size_ = false;  // the next such write tries again
    say(error.what());
  }
}

void Service::serve(Fd client) {
  if (!mounted_) return;  // the peer sees the connection closed, and tries again
  workers_.start(device_->kernel_fd(), std::move(client), [this](Worker& worker, Fd socket) {
    serve_control_connection(worker, socket, facts_);
  });
}

void Service::stop() {
  if (leaving_ || !mounted_ || std::exchange(stopping_, true)) {
    leaving_ = true;
    return;
  }
  try {
    workers_.start(device_->kernel_fd(), Fd(), [this](Worker& worker, const Fd&) {
      try {
        leave_cleanly(facts_);
      } catch (const std::exception& error) {
        say(std::string("leaving all the same: ") + error.what());
        worker.ask({{"op", "leave"}});
      }
    });
  } catch (const Error& error) {
    say(error.what());
    leaving_ = true;
  }
}

Json Service::status() const {
  const NbdClient::Statistics& numbers = server_.statistics();
  return {{"ok", true},
          {"size", device_->size()},
          {"links", server_.links_ready()},
          {"requests_open", device_->open_requests()},
          {"requests_waiting", server_.waiting()},
          {"requests", numbers.requests},
          {"requests_failed", device_->failed_requests()},
          {"bytes_read", numbers.bytes_read},
          {"bytes_written", numbers.bytes_written},
          {"links_lost", numbers.links_lost},
          {"last_error", server_.last_error().empty() ? Json() : Json(server_.last_error())}};
}

void Service::take_down() {
  control_.reset();
  if (device_) {
    // First, so that whoever waits for the device is told, workers among them.
    device_->unmount();
    workers_.finish(kWorkersPatience);
    server_.close(kGoodbyePatience);
    device_.reset();
    try {
      if (is_mounted(options_.path)) unmount(options_.path, true);
    } catch (const std::exception& error) {
      say(error.what());
    }
  }
  if (made_path_ && !is_mounted(options_.path)) unlink(options_.path.c_str());
}

}  // namespace zbig::fuse
