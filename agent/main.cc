// SPDX-License-Identifier: BSD-3-Clause

// zbigd: the agent. Finds its places, makes sure that it is the only one there, brings back the
// devices of its state folder, and answers the HTTP API until it is told to stop.
//
// Servers and mounts stay when it stops: devices go on working without an agent, only that nothing
// can be committed; the next agent takes them over.

#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include <poll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "agent/api/places.h"
#include "agent/control_client.h"
#include "agent/daemon.h"
#include "agent/files.h"
#include "agent/hinted_error.h"
#include "agent/http_server.h"
#include "agent/log.h"
#include "agent/routes.h"
#include "agent/self_check.h"
#include "agent/service_process.h"
#include "zodb/error_word.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;

constexpr const char* kUsage =
    "usage: zbigd [--foreground] [--scopes] [--state DIR] [--socket PATH] [--feed-grace SECONDS]\n";

constexpr const char* kHelp = R"(
The agent of zbig: attaches volumes of ZODB databases as files and devices, and commits what
programs wrote to them. `zbig attach` starts it when it does not run.

  --foreground     stay in the foreground, and log to standard error
  --scopes         start servers in scopes of systemd, so that they outlive a unit of zbigd's
  --state DIR      where devices and their uncommitted writes are kept
                   (root: /var/lib/zbig; otherwise $XDG_STATE_HOME/zbig or ~/.local/state/zbig)
  --socket PATH    where it listens, with the sockets of its servers beside it
                   (root: /run/zbig/zbigd.sock; otherwise $XDG_RUNTIME_DIR/zbig/zbigd.sock)
  --feed-grace SECONDS
                   so long a device goes on to be read when it cannot be learned whether others
                   committed something newer; then reads fail until it can (60)
  --help           this text
  --version        the version

Environment:
  ZBIG_SOCKET      as --socket
  ZBIG_PLUGIN      the nbdkit plugin to use, where it is neither beside zbigd nor in nbdkit's folder
  ZBIG_FUSE        the zbig-fuse to use, where it is neither beside zbigd nor in $PATH
  WENDELIN_CORE_ZBLK_FMT
                   the format of blocks for devices attached without --format: ZBlk0, ZBlk1 or auto

It stops at SIGTERM or SIGINT; attached devices go on working, and the next zbigd takes them over.
In the background it logs to zbigd.log in its state folder.
)";

struct Options {
  bool foreground = false;
  bool scopes = false;
  std::string state;
  std::string socket;
  std::chrono::seconds feed_grace{60};
};

class UsageError : public Invalid {
 public:
  using Invalid::Invalid;
};

std::string value_of(const std::vector<std::string>& words, std::size_t& i) {
  const std::string& word = words[i];
  const std::size_t equals = word.find('=');
  if (equals != std::string::npos) return word.substr(equals + 1);
  if (i + 1 >= words.size()) throw UsageError(word + ": a value is missing");
  return words[++i];
}

std::chrono::seconds seconds_of(const std::string& name, const std::string& text) {
  constexpr unsigned kMost = 24 * 60 * 60;
  unsigned seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size() || seconds > kMost) {
    throw UsageError(name + " " + text + ": seconds are wanted, at most " + std::to_string(kMost));
  }
  return std::chrono::seconds(seconds);
}

// Nothing if the question was answered and there is nothing to start.
std::optional<Options> parse_options(const std::vector<std::string>& words) {
  Options options;
  options.state = default_state_directory();
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string name = words[i].substr(0, words[i].find('='));
    if (name == "--foreground") {
      options.foreground = true;
    } else if (name == "--scopes") {
      options.scopes = true;
    } else if (name == "--state") {
      options.state = value_of(words, i);
    } else if (name == "--socket") {
      options.socket = value_of(words, i);
    } else if (name == "--feed-grace") {
      options.feed_grace = seconds_of(name, value_of(words, i));
    } else if (name == "--help" || name == "-h") {
      std::cout << kUsage << kHelp;
      return std::nullopt;
    } else if (name == "--version") {
      std::cout << "zbigd " ZBIG_VERSION "\n";
      return std::nullopt;
    } else {
      throw UsageError("'" + words[i] + "' is no option of it");
    }
  }
  if (options.socket.empty()) {
    const char* socket = std::getenv("ZBIG_SOCKET");
    options.socket = socket != nullptr && *socket != '\0' ? socket : default_agent_socket();
  }
  if (options.state.empty()) throw UsageError("--state: a folder is wanted");
  options.state = canonical_path(options.state);
  options.socket = canonical_path(options.socket);
  return options;
}

// A part of zbig, as the environment says, or in one of `places`: in the build folder it is beside
// us, installed it is below the same prefix. Otherwise `name`, for nbdkit or $PATH to find.
std::string find_part(const char* variable, std::initializer_list<const char*> places,
                      const char* name) {
  const char* override = std::getenv(variable);
  if (override != nullptr && *override != '\0') return canonical_path(override);
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return name;
  for (const char* place : places) {
    const auto part = (self.parent_path() / place).lexically_normal();
    if (std::filesystem::exists(part, error)) return part.string();
  }
  return name;
}

// One agent to a state folder: the lock is held as long as this process lives.
Fd lock_state(const std::string& state) {
  make_private_directory(state);
  const std::string path = state + "/lock";
  Fd lock = try_lock_file(path);
  if (!lock) {
    std::string pid = read_small_file(path, 64);
    while (pid.ends_with('\n')) pid.pop_back();
    throw HintedError(ErrorCode::kBusy,
                      "another zbigd (process " + pid + ") has the state folder " + state,
                      "one is enough; `zbig status` talks to it");
  }
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(lock.get(), 0) != 0 || ::pwrite(lock.get(), pid.data(), pid.size(), 0) < 0) {
    throw_errno("write " + path, errno);
  }
  return lock;
}

// A socket file that nobody answers at is left by an agent that was killed.
Fd listen_at(const std::string& path) {
  try {
    connect_unix_socket(path);
  } catch (const Unavailable&) {
    ::unlink(path.c_str());
    return listen_unix_socket(path);
  }
  throw HintedError(ErrorCode::kBusy, "another program listens at " + path,
                    "stop that one, or choose another place with --socket");
}

int exit_status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalid:
      return 2;
    case ErrorCode::kNotFound:
      return 4;
    case ErrorCode::kBusy:
      return 5;
    case ErrorCode::kUnavailable:
      return 6;
    case ErrorCode::kCorrupt:
      return 7;
    default:
      return 1;
  }
}

// Blocked in every thread, and taken from a descriptor.
Fd stop_signals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGTERM);
  ::sigaddset(&signals, SIGINT);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  Fd fd(::signalfd(-1, &signals, SFD_CLOEXEC));
  if (!fd) throw_errno("make a signalfd", errno);
  return fd;
}

// Until a signal tells to stop. Meanwhile the service manager hears that the agent is alive, as
// long as it answers a request about all devices, which takes each lock that it has.
void wait_for_stop(const Fd& signals, const std::string& socket, const ServiceManager& manager) {
  constexpr milliseconds kAnyTime{60000};
  const milliseconds interval = manager.watchdog() / 3;
  const auto stopped_within = [&](milliseconds time) {
    pollfd item{.fd = signals.get(), .events = POLLIN, .revents = 0};
    return ::poll(&item, 1, static_cast<int>(time.count())) > 0;
  };
  while (!stopped_within(interval.count() > 0 ? interval : kAnyTime)) {
    if (interval.count() == 0) continue;
    if (answers_itself(socket, signals, interval)) {
      manager.notify("WATCHDOG=1");
    } else if (!stopped_within(milliseconds(0))) {
      log_line("it does not answer a request of its own");
    }
  }
}

void run(const Options& options, Daemon& daemon, const ServiceManager& manager) {
  const Fd lock = lock_state(options.state);
  const std::string runtime = std::filesystem::path(options.socket).parent_path();
  make_directories(runtime, 0700);
  Fd listener = listen_at(options.socket);
  const std::string servers = runtime + "/servers";
  make_private_directory(servers);
  const Fd signals = stop_signals();

  std::stop_source stop;
  Agent agent(
      {.state_directory = options.state,
       .runtime_directory = runtime,
       .sockets_directory = servers,
       .plugin = find_part("ZBIG_PLUGIN", {"nbdkit-zbig-plugin.so", ZBIG_INSTALLED_PLUGIN}, "zbig"),
       .fuse_program = find_part("ZBIG_FUSE", {"zbig-fuse"}, "zbig-fuse")},
      options.feed_grace, stop.get_token());
  agent.start();
  {
    HttpServer server(std::move(listener), [&agent](const HttpRequest& request) {
      return answer_request(agent, request);
    });
    log_line("ready at " + options.socket + ", state in " + options.state);
    daemon.report_ready(options.state + "/zbigd.log");
    manager.notify("READY=1");
    wait_for_stop(signals, options.socket, manager);
    log_line("stopping; attached devices go on working");
    manager.notify("STOPPING=1");
    ::unlink(options.socket.c_str());
    stop.request_stop();
  }
}

int main_of(const std::vector<std::string>& words) {
  Daemon daemon;
  const auto fail = [&](ErrorCode code, const std::string& sentence, const std::string& hint) {
    const int status = exit_status_of(code);
    daemon.report_failure(status,
                          "zbigd: start: " + sentence + "\n" + (hint.empty() ? "" : hint + "\n"));
    return status;
  };
  try {
    const std::optional<Options> options = parse_options(words);
    if (!options) return 0;
    if (!options->foreground) daemon = Daemon::fork_to_background();
    const ServiceManager manager;
    if (options->scopes) ServiceProcess::use_scopes();
    run(*options, daemon, manager);
    return 0;
  } catch (const UsageError& error) {
    return fail(error.code(), error.what(), kUsage);
  } catch (const HintedError& error) {
    return fail(error.code(), error.what(), error.hint);
  } catch (const Error& error) {
    return fail(error.code(), error.what(), {});
  } catch (const std::exception& error) {
    return fail(ErrorCode::kFailed, error.what(), {});
  }
}

}  // namespace
}  // namespace zbig

int main(int argc, char** argv) { return zbig::main_of({argv + 1, argv + argc}); }
