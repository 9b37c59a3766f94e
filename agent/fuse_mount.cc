// SPDX-License-Identifier: BSD-3-Clause
#include "agent/fuse_mount.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/files.h"
#include "agent/fuse/mount_point.h"
#include "agent/hinted_error.h"
#include "agent/log.h"
#include "zodb/error.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kStartDeadline{15000};  // longer than zbig-fuse's own for the server
constexpr milliseconds kHelloDeadline{5000};
constexpr milliseconds kQuitDeadline{60000};
constexpr milliseconds kForceDeadline{2000};

}  // namespace

std::string FuseMount::node_for(const std::string& wanted, const std::string& name) {
  std::string path = canonical_path(wanted);
  // Before anything else: to look at a file whose server is away may take long.
  const auto refuse_mounted = [&] {
    if (!fuse::is_mounted(path)) return;
    throw HintedError(ErrorCode::kBusy, "a device is mounted at " + path,
                      "`zbig detach` takes it away (or `fusermount3 -u " + path +
                          "` what is left of another agent's); or choose another path");
  };
  refuse_mounted();
  struct stat found = {};
  int error = ::stat(path.c_str(), &found) == 0 ? 0 : errno;
  if (error == 0 && S_ISDIR(found.st_mode)) {
    path += "/" + name;
    refuse_mounted();
    error = ::stat(path.c_str(), &found) == 0 ? 0 : errno;
  }
  if (error == ENOENT) {
    const std::string folder = std::filesystem::path(path).parent_path();
    if (::access(folder.c_str(), W_OK | X_OK) != 0) throw_errno("make the file " + path, errno);
    return path;
  }
  if (error != 0) throw_errno("mount at " + path, error);
  if (!S_ISREG(found.st_mode) || found.st_size != 0) {
    throw HintedError(ErrorCode::kInvalid, path + " exists and is no empty file",
                      "name a file that does not exist, or a folder to make it in");
  }
  return path;
}

void FuseMount::prepare(DeviceRecord& record) const {
  record.made_fuse_path = !std::filesystem::exists(places_.path);
}

void FuseMount::bring_up(std::uint64_t size) {
  // Below the runtime folder, which may have gone with a reboot.
  make_directories(std::filesystem::path(places_.path).parent_path(), 0700);
  if (!well()) {
    told_size_ = 0;
    if (!adopt()) start();
  }
  // One that is well and knows it may be just stuck, which is for whoever needs it to find out.
  if (told_size_ != size) resize(size, kStartDeadline);
  make_link();
}

std::vector<int> FuseMount::watched() const {
  if (!process_) return {};
  return {process_->pidfd()};
}

std::vector<pid_t> FuseMount::processes() const {
  if (!process_) return {};
  return {process_->pid()};
}

void FuseMount::start() {
  if (::access("/dev/fuse", R_OK | W_OK) != 0) {
    throw HintedError(ErrorCode::kUnavailable,
                      std::string("no FUSE on this machine: /dev/fuse: ") +
                          std::generic_category().message(errno),
                      "--socket-only attaches without it, for NBD clients");
  }
  std::vector<std::string> command = {places_.program, "--foreground", "--uri", uri_,
                                      "--control",     places_.control};
  if (read_only_) command.emplace_back("--read-only");
  command.push_back(places_.path);
  process_ = ServiceProcess::start(places_.lock, command, places_.log);
  const auto deadline = Clock::now() + kStartDeadline;
  while (true) {
    try {
      control_.request({{"op", "hello"}}, kForceDeadline);
      return;
    } catch (const Unavailable&) {
    }
    const bool ended = process_->wait_end(milliseconds(5));
    if (!ended && Clock::now() < deadline) continue;
    std::string reason = "did not mount it in time";
    if (ended) {
      reason = last_line_of(places_.log);
      constexpr std::string_view kPrefix = "zbig-fuse: ";
      if (reason.starts_with(kPrefix)) reason.erase(0, kPrefix.size());
    }
    end_by_force();
    throw HintedError(ErrorCode::kFailed, "mount " + places_.path + ": zbig-fuse: " + reason,
                      "its log is " + places_.log);
  }
}

// Takes over the process that an earlier agent started for the same export; false if there is none,
// and then nothing is left of what there was. One that lives and does not answer is not ended:
// programs use it, and it may be only stopped.
bool FuseMount::adopt() {
  process_ = ServiceProcess::find(places_.lock);
  const auto deadline = Clock::now() + kHelloDeadline;
  while (process_ && process_->alive() && Clock::now() < deadline) {
    try {
      const Json hello = control_.request({{"op", "hello"}}, kForceDeadline);
      if (hello.value("path", "") == places_.path && hello.value("uri", "") == uri_) return true;
      break;
    } catch (const Error&) {
      // It may be starting, or have more connections than it takes at once.
      process_->wait_end(milliseconds(50));
    }
  }
  if (process_ && process_->alive() && Clock::now() >= deadline) {
    const pid_t pid = process_->pid();
    process_.reset();
    throw HintedError(
        ErrorCode::kUnavailable,
        "process " + std::to_string(pid) + ", which serves " + places_.path + ", does not answer",
        "if it does not go on, `zbig detach --force` ends it");
  }
  if (process_) log_line("the process that served " + places_.path + " cannot be taken over");
  end_by_force();
  return false;
}

void FuseMount::end() {
  if (well()) {
    try {
      control_.request({{"op", "quit"}}, kQuitDeadline);
    } catch (const Busy&) {
      throw HintedError(ErrorCode::kBusy, "a program has " + places_.path + " open or mapped",
                        "end the programs that use it (`fuser -m " + places_.path +
                            "` lists them), or detach with --force");
    } catch (const Unavailable&) {
      if (well()) throw;
    }
    process_->wait_end(milliseconds(5000));
  }
  end_by_force();
}

void FuseMount::end_by_force() {
  if (!process_) process_ = ServiceProcess::find(places_.lock);
  if (well()) {
    try {
      control_.request({{"op", "quit"}, {"force", true}}, kForceDeadline);
    } catch (const Error&) {
      // Then by the signal.
    }
    if (!process_->wait_end(kForceDeadline)) {
      process_->kill();
      process_->wait_end(kForceDeadline);
    }
  }
  process_.reset();
  try {
    for (int i = 0; i < 8 && fuse::is_mounted(places_.path); ++i) fuse::unmount(places_.path, true);
  } catch (const Error& error) {
    log_line(error.what());
  }
}

void FuseMount::sync(milliseconds timeout) {
  control_.request({{"op", "sync"}}, timeout, server_.pidfd());
}

// Does nothing if it is as large already.
void FuseMount::resize(std::uint64_t size, milliseconds timeout) {
  control_.request({{"op", "invalidate"}, {"size", size}}, timeout, server_.pidfd());
  told_size_ = size;
}

void FuseMount::grow(const DeviceRecord& record, milliseconds timeout) {
  resize(record.least_size, timeout);
}

void FuseMount::drop_pages(const StalePages& pages, milliseconds timeout) {
  Json request = {{"op", "invalidate"}};
  if (pages.whole) {
    request["whole"] = true;
  } else {
    request["extents"] = Json::array();
    for (const Extent& extent : pages.extents) {
      request["extents"].push_back({extent.offset, extent.length});
    }
  }
  control_.request(request, timeout, server_.pidfd());
}

// The kernel has no way to drop a dirty page of a file: it becomes a write after the abort.
void FuseMount::discard_pages(const StalePages& pages, milliseconds timeout) {
  drop_pages(pages, timeout);
}

// Makes the link, or leaves it as it is if it points there. Throws Busy if it is somebody else's.
void FuseMount::make_link() const {
  const std::string& link = places_.link;
  if (link.empty()) return;
  std::error_code error;
  const auto target = std::filesystem::read_symlink(link, error);
  if (!error && target == places_.path) return;
  if (!error && !std::filesystem::exists(link, error)) std::filesystem::remove(link, error);
  make_directories(std::filesystem::path(link).parent_path(), 0755);
  if (::symlink(places_.path.c_str(), link.c_str()) == 0) return;
  if (errno != EEXIST) throw_errno("make the link " + link, errno);
  throw HintedError(ErrorCode::kBusy, link + " exists and is not of this device",
                    "another agent has a device of that name: choose another with --name");
}

void FuseMount::remove_names(const DeviceRecord& record) const {
  std::error_code error;
  if (std::filesystem::read_symlink(places_.link, error) == places_.path && !error) {
    std::filesystem::remove(places_.link, error);
  }
  if (record.made_fuse_path) ::unlink(places_.path.c_str());
}

}  // namespace zbig
