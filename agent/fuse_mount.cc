// SPDX-License-Identifier: BSD-3-Clause
#include "agent/fuse_mount.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>

#include "agent/files.h"
#include "agent/hinted_error.h"
#include "agent/log.h"
#include "zodb/error.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kMountDeadline{10000};

// Mount points of FUSE file systems, from the kernel's table: asking a file system itself may hang.
bool is_fuse_mount_point(const std::string& path) {
  std::ifstream table("/proc/self/mountinfo");
  for (std::string line; std::getline(table, line);) {
    std::istringstream words(line);
    std::string word, point;
    for (int i = 0; i < 5; ++i) words >> point;
    while (words >> word && word != "-") {
    }
    std::string type;
    words >> type;
    if (!type.starts_with("fuse")) continue;
    std::string plain;  // the table writes a space as \040
    for (std::size_t i = 0; i < point.size(); ++i) {
      if (point[i] == '\\' && i + 3 < point.size()) {
        plain += static_cast<char>(std::stoi(point.substr(i + 1, 3), nullptr, 8));
        i += 3;
      } else {
        plain += point[i];
      }
    }
    if (plain == path) return true;
  }
  return false;
}

CommandResult fusermount(const std::string& flag, const std::string& mount_point) {
  const std::vector<std::string> command = {"fusermount3", flag, "--", mount_point};
  return run_command(command, milliseconds(5000));
}

}  // namespace

FuseMount::FuseMount(std::string path, std::string lock_path, std::string log_path)
    : path_(std::move(path)), lock_path_(std::move(lock_path)), log_path_(std::move(log_path)) {}

std::string FuseMount::node_for(const std::string& wanted, const std::string& name) {
  std::string path = canonical_path(wanted);
  if (is_fuse_mount_point(path)) {
    throw HintedError(ErrorCode::kBusy, "something is mounted at " + path,
                      "`fusermount3 -u " + path + "` unmounts it; or choose another path");
  }
  struct stat found = {};
  int error = ::stat(path.c_str(), &found) == 0 ? 0 : errno;
  if (error == 0 && S_ISDIR(found.st_mode)) {
    path += "/" + name;
    error = ::stat(path.c_str(), &found) == 0 ? 0 : errno;
  }
  if (error == ENOENT) return path;
  if (error != 0) throw_errno("mount at " + path, error);
  if (!S_ISREG(found.st_mode) || found.st_size != 0) {
    throw HintedError(ErrorCode::kInvalid, path + " exists and is no empty file",
                      "name a file that does not exist, or a folder to make it in");
  }
  return path;
}

bool FuseMount::make_mount_point(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (fd) return true;
  if (errno == EEXIST) return false;
  throw_errno("make the mount point " + path, errno);
}

bool FuseMount::mounted() const { return is_fuse_mount_point(path_); }

void FuseMount::mount(const std::string& uri, bool read_only, const std::string& server_tag) {
  if (::access("/dev/fuse", R_OK | W_OK) != 0) {
    throw HintedError(ErrorCode::kUnavailable,
                      std::string("no FUSE on this machine: /dev/fuse: ") + std::strerror(errno),
                      "--socket-only attaches without it, for NBD clients");
  }
  std::vector<std::string> command = {"nbdfuse"};
  if (read_only) command.push_back("-r");
  command.insert(command.end(), {path_, uri});
  process_ = ServiceProcess::start(lock_path_, server_tag, command, log_path_);
  const auto deadline = Clock::now() + kMountDeadline;
  while (!mounted()) {
    const bool ended = process_->wait_end(milliseconds(5));
    if (!ended && Clock::now() < deadline) continue;
    if (!ended) unmount_by_force();
    process_.reset();
    const std::string reason = last_line_of(log_path_);
    throw HintedError(ErrorCode::kFailed,
                      "mount " + path_ + ": nbdfuse " +
                          (ended ? "gave up: " + reason : "did not mount it in 10 s"),
                      "nbdfuse is in the Debian package libnbd-bin; its log is " + log_path_);
  }
}

bool FuseMount::adopt(const std::string& server_tag) {
  process_ = ServiceProcess::find(lock_path_);
  if (process_ && process_->tag() == server_tag && mounted()) return true;
  unmount_by_force();
  return false;
}

void FuseMount::unmount() {
  if (mounted()) {
    const CommandResult result = fusermount("-u", path_);
    if (result.status != 0 && mounted()) {
      throw HintedError(ErrorCode::kBusy, "unmount " + path_ + ": " + result.output,
                        "end the programs that use it (`fuser -m " + path_ +
                            "` lists them), or detach with --force");
    }
  }
  if (process_ && !process_->wait_end(milliseconds(5000))) process_->stop(milliseconds(1000));
  process_.reset();
}

void FuseMount::unmount_by_force() {
  // A lazy unmount hides it from new users; the end of nbdfuse ends the others' requests.
  if (!process_) process_ = ServiceProcess::find(lock_path_);
  for (int i = 0; i < 8 && mounted(); ++i) fusermount("-uz", path_);
  if (process_) process_->stop(milliseconds(1000));
  process_.reset();
  if (mounted()) log_line(path_ + " cannot be unmounted");
}

void FuseMount::sync(milliseconds timeout) const { sync_file_with_deadline(path_, timeout); }

}  // namespace zbig
