// SPDX-License-Identifier: BSD-3-Clause
#include "agent/kernel_nbd/holders.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/kernel_nbd/node.h"

namespace zbig {
namespace {

namespace fs = std::filesystem;

// Whether a link of /proc leads to the device. It is followed inside of the kernel, not by its
// text; and nobody is asked for attributes that it does not have at hand, for a file of a dead
// server may be among the links.
bool leads_to(const fs::path& link, const std::string& device) {
  struct statx found = {};
  if (::statx(AT_FDCWD, link.c_str(), AT_STATX_DONT_SYNC, STATX_TYPE, &found) != 0) return false;
  return S_ISBLK(found.stx_mode) && device == std::to_string(found.stx_rdev_major) + ":" +
                                                  std::to_string(found.stx_rdev_minor);
}

bool any_leads_to(const fs::path& folder, const std::string& device) {
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (leads_to(at->path(), device)) return true;
  }
  return false;
}

}  // namespace

std::vector<std::string> device_holders(std::uint32_t index) {
  std::vector<std::string> holders;
  const std::string device = sysfs_read(index, "dev").value_or("");
  const std::string self = std::to_string(::getpid());
  std::error_code error;
  for (fs::directory_iterator at("/proc", error), end; !error && at != end; at.increment(error)) {
    const std::string pid = at->path().filename();
    const bool process =
        std::all_of(pid.begin(), pid.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (!process || pid == self) continue;
    if (any_leads_to(at->path() / "fd", device) || any_leads_to(at->path() / "map_files", device)) {
      std::string name;
      std::getline(std::ifstream(at->path() / "comm"), name);
      holders.push_back(pid + " (" + name + ")");
    }
  }
  return holders;
}

}  // namespace zbig
