// SPDX-License-Identifier: BSD-3-Clause
#include "agent/mounts.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "zodb/error.h"

namespace zbig {
namespace {

namespace fs = std::filesystem;

std::string first_line(const fs::path& path) {
  std::string line;
  std::getline(std::ifstream(path), line);
  return line;
}

std::string number_text(dev_t device) {
  return std::to_string(major(device)) + ":" + std::to_string(minor(device));
}

// Of a block device; empty if the path is none. Files elsewhere are not even looked at: a server
// that is away may have to answer for them.
std::string block_device_number(const std::string& path) {
  struct stat found = {};
  if (!path.starts_with("/dev/")) return {};
  if (::stat(path.c_str(), &found) != 0 || !S_ISBLK(found.st_mode)) return {};
  return number_text(found.st_rdev);
}

// Loop devices over the file, and their partitions.
void add_loop_devices(const std::string& node, std::set<std::string>& devices) {
  std::error_code error;
  for (fs::directory_iterator at("/sys/block", error), end; !error && at != end;
       at.increment(error)) {
    const fs::path loop = at->path();
    if (!loop.filename().string().starts_with("loop")) continue;
    if (first_line(loop / "loop/backing_file") != node) continue;
    devices.insert(first_line(loop / "dev"));
    std::error_code ignored;
    for (fs::directory_iterator part(loop, ignored), none; !ignored && part != none;
         part.increment(ignored)) {
      if (!part->path().filename().string().starts_with("loop")) continue;
      if (fs::exists(part->path() / "partition", error)) {
        devices.insert(first_line(part->path() / "dev"));
      }
    }
  }
}

}  // namespace

std::string unescaped(const std::string& escaped) {
  std::string text;
  const auto octal = [&](std::size_t at) { return escaped[at] >= '0' && escaped[at] <= '7'; };
  for (std::size_t i = 0; i < escaped.size(); ++i) {
    if (escaped[i] == '\\' && i + 3 < escaped.size() && octal(i + 1) && octal(i + 2) &&
        octal(i + 3)) {
      text += static_cast<char>((escaped[i + 1] - '0') * 64 + (escaped[i + 2] - '0') * 8 +
                                (escaped[i + 3] - '0'));
      i += 3;
    } else {
      text += escaped[i];
    }
  }
  return text;
}

// 36 35 98:0 /root /mount/point rw,noatime shared:1 ... - ext4 /dev/nbd0 rw   (proc(5))
std::vector<Mount> parse_mountinfo(const std::string& text) {
  std::vector<Mount> mounts;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    Mount mount;
    std::string word;
    words >> word >> word >> mount.device >> word >> mount.escaped;
    while (words >> word && word != "-") {
    }
    if (!(words >> mount.type >> mount.source)) continue;
    mount.mount_point = unescaped(mount.escaped);
    mount.source = unescaped(mount.source);
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

std::vector<Mount> mounts_from(const std::string& node) {
  std::set<std::string> devices;
  if (const std::string number = block_device_number(node); !number.empty()) devices.insert(number);
  add_loop_devices(node, devices);
  std::ostringstream text;
  text << std::ifstream("/proc/self/mountinfo").rdbuf();
  std::vector<Mount> found;
  for (Mount& mount : parse_mountinfo(text.str())) {
    // The second is for file systems that have a number of their own, as btrfs.
    const bool ours =
        devices.contains(mount.device) || devices.contains(block_device_number(mount.source));
    const bool known = std::any_of(found.begin(), found.end(), [&](const Mount& other) {
      return other.device == mount.device;
    });
    if (ours && !known) found.push_back(std::move(mount));
  }
  return found;
}

Fd open_mount(const Mount& mount) {
  Fd fd(::open(mount.mount_point.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) throw_errno("open " + mount.mount_point, errno);
  struct stat found = {};
  if (::fstat(fd.get(), &found) != 0) throw_errno("look at " + mount.mount_point, errno);
  // Each subvolume of btrfs tells a number of its own.
  if (mount.type != "btrfs" && number_text(found.st_dev) != mount.device) {
    throw Busy("something else is mounted above " + mount.mount_point);
  }
  return fd;
}

}  // namespace zbig
