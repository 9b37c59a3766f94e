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
constexpr milliseconds kHelloDeadline{10000};
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

void FuseMount::start(const std::string& uri, bool read_only) {
  if (::access("/dev/fuse", R_OK | W_OK) != 0) {
    throw HintedError(ErrorCode::kUnavailable,
                      std::string("no FUSE on this machine: /dev/fuse: ") +
                          std::generic_category().message(errno),
                      "--socket-only attaches without it, for NBD clients");
  }
  std::vector<std::string> command = {places_.program, "--foreground", "--uri", uri,
                                      "--control",     places_.control};
  if (read_only) command.emplace_back("--read-only");
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

bool FuseMount::adopt(const std::string& uri) {
  process_ = ServiceProcess::find(places_.lock);
  const auto deadline = Clock::now() + kHelloDeadline;
  while (process_ && process_->alive() && Clock::now() < deadline) {
    try {
      const Json hello = control_.request({{"op", "hello"}}, kForceDeadline);
      if (hello.value("path", "") == places_.path && hello.value("uri", "") == uri) return true;
      break;
    } catch (const Error&) {
      // It may be starting, or have more connections than it takes at once.
      process_->wait_end(milliseconds(50));
    }
  }
  if (process_) log_line("the process that served " + places_.path + " cannot be taken over");
  end_by_force();
  return false;
}

void FuseMount::end() {
  if (alive()) {
    try {
      control_.request({{"op", "quit"}}, kQuitDeadline);
    } catch (const Busy&) {
      throw HintedError(ErrorCode::kBusy, "a program has " + places_.path + " open or mapped",
                        "end the programs that use it (`fuser -m " + places_.path +
                            "` lists them), or detach with --force");
    } catch (const Unavailable&) {
      if (alive()) throw;
    }
    process_->wait_end(milliseconds(5000));
  }
  end_by_force();
}

void FuseMount::end_by_force() {
  if (!process_) process_ = ServiceProcess::find(places_.lock);
  if (alive()) {
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

void FuseMount::sync(int server, milliseconds timeout) const {
  control_.request({{"op", "sync"}}, timeout, server);
}

void FuseMount::invalidate(const Json& moved, int server, milliseconds timeout) const {
  Json request = {{"op", "invalidate"}};
  for (const char* key : {"extents", "whole"}) {
    if (moved.contains(key)) request[key] = moved[key];
  }
  control_.request(request, timeout, server);
}

}  // namespace zbig
