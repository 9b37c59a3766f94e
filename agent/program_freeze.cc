// SPDX-License-Identifier: BSD-3-Clause
#include "agent/program_freeze.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <sstream>

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "agent/files.h"
#include "agent/freeze_mark.h"
#include "agent/hinted_error.h"
#include "agent/mounts.h"
#include "zodb/error.h"

namespace zbig {

// What is to be frozen, opened.
struct ProgramFreeze::Target {
  std::string name;  // for people
  std::string mark;  // a line
  Fd fd;             // of the mount point, or of cgroup.freeze
  Fd events;         // of cgroup.events; none for a file system
  bool frozen = false;
};

namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxProcs = 16u << 20;
constexpr milliseconds kAskEvery{20};
constexpr milliseconds kHolderMargin{2000};

// --- the holder: from here to run_holder only what is safe in a copy of a process with threads

// What it says: once when all is frozen or could not be, once when all is thawed.
struct Word {
  int error = 0;  // errno; ETIMEDOUT for a freeze that did not last
  int target = 0;
};

int milliseconds_until(Clock::time_point deadline) {
  const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<long>(left, 0, 1 << 20));
}

// True when a word has come or the other end is closed, false at the deadline.
bool wait_readable(int socket, Clock::time_point deadline) {
  while (true) {
    pollfd item{.fd = socket, .events = POLLIN, .revents = 0};
    const int n = ::poll(&item, 1, milliseconds_until(deadline));
    if (n > 0) return true;
    if (n == 0 && Clock::now() >= deadline) return false;
  }
}

bool says(int file, std::string_view line) {
  std::array<char, 512> text;
  const ssize_t n = ::pread(file, text.data(), text.size(), 0);
  return n > 0 && std::string_view(text.data(), static_cast<std::size_t>(n)).find(line) !=
                      std::string_view::npos;
}

int write_digit(int file, const char* digit) {
  return ::pwrite(file, digit, 1, 0) == 1 ? 0 : errno;
}

int freeze_cgroup(int file, int events, int socket, Clock::time_point deadline) {
  if (const int error = write_digit(file, "1"); error != 0) return error;
  while (!says(events, "frozen 1")) {
    std::array<pollfd, 2> items{{{.fd = events, .events = POLLPRI, .revents = 0},
                                 {.fd = socket, .events = POLLIN, .revents = 0}}};
    ::poll(items.data(), items.size(), milliseconds_until(deadline));
    if (items[1].revents != 0) return ECANCELED;
    if (Clock::now() >= deadline && !says(events, "frozen 1")) return ETIMEDOUT;
  }
  return 0;
}

// What is dirty is written while programs go on, so that they stop for a moment only.
int freeze_file_system(int fd) {
  if (::syncfs(fd) != 0 || ::ioctl(fd, FIFREEZE, 0) != 0) return errno;
  return 0;
}

template <class Targets>
[[noreturn]] void run_holder(Targets& targets, const std::vector<int>& fds, int socket,
                             const FreezeMark& mark, milliseconds patience) {
  close_all_but(fds);
  const auto deadline = Clock::now() + patience;
  Word word;
  for (std::size_t i = 0; i < targets.size() && word.error == 0; ++i) {
    auto& target = targets[i];
    if (target.events) {
      if (says(target.fd.get(), "1")) continue;  // G4
      target.frozen = true;
      word.error = freeze_cgroup(target.fd.get(), target.events.get(), socket, deadline);
    } else {
      word.error = freeze_file_system(target.fd.get());
      target.frozen = word.error == 0;
    }
    if (word.error != 0) word.target = static_cast<int>(i);
  }
  const bool frozen = word.error == 0;
  // A send to an agent that is gone fails, and it is as if it had let go.
  if (frozen) ::send(socket, &word, sizeof word, MSG_NOSIGNAL);
  if (frozen && !wait_readable(socket, Clock::now() + ProgramFreeze::kLongest)) {
    word.error = ETIMEDOUT;
  }
  for (auto& target : targets) {
    if (!target.frozen) continue;
    if (target.events) {
      write_digit(target.fd.get(), "0");
    } else if (::ioctl(target.fd.get(), FITHAW, 0) != 0 && errno == EINVAL) {
      word.error = ETIMEDOUT;  // somebody else has thawed it
    }
  }
  mark.remove();
  ::send(socket, &word, sizeof word, MSG_NOSIGNAL);
  ::_exit(0);
}

// --- the agent's side

enum class Waited { kAnswered, kGivenUp, kTooLong };

Waited wait_for_holder(int socket, Clock::time_point deadline, const std::function<bool()>& go_on) {
  while (!wait_readable(socket, std::min(deadline, Clock::now() + kAskEvery))) {
    if (go_on && !go_on()) return Waited::kGivenUp;
    if (Clock::now() >= deadline) return Waited::kTooLong;
  }
  return Waited::kAnswered;
}

[[noreturn]] void refuse_unprivileged(const std::string& what) {
  throw HintedError(ErrorCode::kUnsupported, what,
                    "start zbigd as root, or commit without --freeze");
}

// Throws if a process of `needed` is in the folder or below it.
void refuse_needed(const fs::path& cgroup, std::span<const pid_t> needed) {
  std::vector<fs::path> folders{cgroup};
  std::error_code error;
  for (fs::recursive_directory_iterator at(cgroup, error), end; !error && at != end;
       at.increment(error)) {
    std::error_code gone;
    if (at->is_directory(gone)) folders.push_back(at->path());
  }
  if (error) throw Busy("look into cgroup " + cgroup.string() + ": " + error.message());
  for (const fs::path& folder : folders) {
    std::string text;
    try {
      text = read_small_file(folder / "cgroup.procs", kMaxProcs);
    } catch (const NotFound&) {
      continue;  // removed meanwhile
    }
    std::istringstream pids(text);
    for (pid_t pid = 0; pids >> pid;) {
      if (std::find(needed.begin(), needed.end(), pid) == needed.end()) continue;
      throw HintedError(ErrorCode::kInvalid,
                        "process " + std::to_string(pid) + " of zbig itself is in " +
                            folder.string() + ", and the commit waits for it",
                        "put the programs that write into a cgroup of their own");
    }
  }
}

Fd open_file(const fs::path& path, int flags) {
  Fd fd(::open(path.c_str(), flags | O_CLOEXEC));
  if (!fd && (errno == EACCES || errno == EPERM)) {
    refuse_unprivileged("open " + path.string() + ": this agent's user may not");
  }
  if (!fd) throw_errno("open " + path.string(), errno);
  return fd;
}

dev_t file_system_of(const std::string& path) {
  struct stat found = {};
  if (::stat(path.c_str(), &found) != 0) throw_errno("look at " + path, errno);
  return found.st_dev;
}

dev_t file_system_of(const Fd& fd, const std::string& name) {
  struct stat found = {};
  if (::fstat(fd.get(), &found) != 0) throw_errno("look at " + name, errno);
  return found.st_dev;
}

[[noreturn]] void throw_not_frozen(bool cgroup, const std::string& name, int error) {
  if (cgroup && error == ETIMEDOUT) {
    throw HintedError(ErrorCode::kBusy,
                      name + " did not come to a stop in " +
                          std::to_string(ProgramFreeze::kCgroupPatience.count() / 1000) + " s",
                      "a program in it waits for something in the kernel; all of it goes on again");
  }
  if (!cgroup && error == EBUSY) {
    throw HintedError(ErrorCode::kBusy, "the file system at " + name + " is frozen already",
                      "`fsfreeze -u` thaws what somebody froze");
  }
  if (!cgroup && error == EOPNOTSUPP) {
    throw Unsupported("the file system at " + name + " cannot be frozen");
  }
  if (error == EPERM || error == EACCES) {
    refuse_unprivileged("freeze " + name + ": this agent's user may not");
  }
  throw_errno("freeze " + name, error);
}

}  // namespace

FreezeChoice parse_freeze(std::string_view text) {
  constexpr std::string_view kCgroup = "cgroup=";
  if (text == "none") return {};
  if (text == "fs") return {.kind = FreezeKind::kFileSystems, .cgroup = {}};
  if (text.starts_with(kCgroup)) {
    const std::string path(text.substr(kCgroup.size()));
    if (path.starts_with('/') && path.find('\n') == std::string::npos) {
      return {.kind = FreezeKind::kCgroup, .cgroup = path};
    }
  }
  throw HintedError(ErrorCode::kInvalid,
                    "freeze: none, fs or cgroup=PATH is wanted, not '" + std::string(text) + "'",
                    "PATH is the folder of a cgroup, as /sys/fs/cgroup/system.slice/NAME.service");
}

ProgramFreeze ProgramFreeze::of_cgroup(const std::string& path, std::span<const pid_t> needed,
                                       const std::string& mark) {
  struct statfs kind = {};
  if (::statfs(path.c_str(), &kind) != 0) throw_errno("cgroup " + path, errno);
  if (kind.f_type != CGROUP2_SUPER_MAGIC ||
      ::access((path + "/cgroup.events").c_str(), F_OK) != 0) {
    throw HintedError(ErrorCode::kInvalid,
                      path + " is no cgroup of version 2, or it is the topmost, which never stops",
                      "`cat /proc/PID/cgroup` tells that of a program: below /sys/fs/cgroup");
  }
  refuse_needed(path, needed);
  std::vector<Target> targets;
  targets.push_back({.name = path,
                     .mark = FreezeMark::line_of_cgroup(path),
                     .fd = open_file(path + "/cgroup.freeze", O_RDWR),
                     .events = open_file(path + "/cgroup.events", O_RDONLY)});
  return {std::move(targets), mark, kCgroupPatience, {}};
}

ProgramFreeze ProgramFreeze::of_file_systems(std::span<const std::string> nodes,
                                             const std::string& state_directory,
                                             const std::string& mark,
                                             const std::function<bool()>& go_on) {
  if (::geteuid() != 0) {
    refuse_unprivileged("freezing a file system needs an agent that runs as root");
  }
  std::vector<Target> targets;
  for (const std::string& node : nodes) {
    const std::vector<Mount> mounts = mounts_from(node);
    if (mounts.empty()) {
      throw HintedError(ErrorCode::kInvalid, "no file system is mounted from " + node,
                        "programs that write to the device itself are stopped by "
                        "--freeze cgroup=PATH; unmounted, it needs no --freeze");
    }
    for (const Mount& mount : mounts) {
      Fd fd = open_mount(mount);
      if (file_system_of(fd, mount.mount_point) == file_system_of(state_directory)) {
        throw Invalid("the agent's own state, " + state_directory + ", is on the file system at " +
                      mount.mount_point + ", and the commit writes to it");
      }
      targets.push_back({.name = mount.mount_point,
                         .mark = FreezeMark::line_of_file_system(mount.escaped),
                         .fd = std::move(fd),
                         .events = {}});
    }
  }
  return {std::move(targets), mark, kFileSystemPatience, go_on};
}

ProgramFreeze::ProgramFreeze(std::vector<Target> targets, std::string mark, milliseconds patience,
                             const std::function<bool()>& go_on)
    : mark_(std::move(mark)), go_on_(go_on) {
  std::string marks;
  for (const Target& target : targets) marks += target.mark;
  std::array<int, 2> ends;
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    throw_errno("make a pair of sockets", errno);
  }
  Fd ours(ends[0]);
  Fd theirs(ends[1]);
  std::vector<int> fds{theirs.get()};
  for (const Target& target : targets) {
    fds.push_back(target.fd.get());
    if (target.events) fds.push_back(target.events.get());
  }
  const FreezeMark written(mark_, marks);
  fds.push_back(written.fd());
  std::sort(fds.begin(), fds.end());
  try {
    start_process([&] { run_holder(targets, fds, theirs.get(), written, patience); });
  } catch (...) {
    written.remove();
    throw;
  }
  theirs.reset();
  const auto deadline = Clock::now() + patience + kHolderMargin;
  const Waited waited = wait_for_holder(ours.get(), deadline, go_on_);
  if (waited != Waited::kAnswered) {
    // G1. The mark is the holder's to remove.
    throw Unavailable(
        "freezing " + targets[0].name +
        (waited == Waited::kGivenUp ? ": the server of the device ended" : ": no answer in time"));
  }
  Word word;
  if (::recv(ours.get(), &word, sizeof word, 0) != sizeof word) {
    thaw_marked(mark_);
    throw Failed("the process that was to freeze " + targets[0].name + " died");
  }
  if (word.error != 0) {
    const Target& target =
        targets[std::min<std::size_t>(static_cast<std::size_t>(word.target), targets.size() - 1)];
    throw_not_frozen(static_cast<bool>(target.events), target.name, word.error);
  }
  holder_ = std::move(ours);
}

// True if it lasted until now. A holder that does not answer in time goes on thawing.
bool ProgramFreeze::let_go() noexcept {
  if (!holder_) return true;
  ::shutdown(holder_.get(), SHUT_WR);
  const Fd socket = std::move(holder_);
  if (wait_for_holder(socket.get(), Clock::now() + kLongest, go_on_) != Waited::kAnswered) {
    return false;
  }
  Word word;
  if (::recv(socket.get(), &word, sizeof word, 0) == sizeof word) return word.error == 0;
  thaw_marked(mark_);
  return false;
}

void ProgramFreeze::thaw() {
  if (let_go()) return;
  throw HintedError(ErrorCode::kUnavailable, "what was frozen went on before all of it was taken",
                    "nothing was committed; commit again");
}

}  // namespace zbig
