// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>
#include <string>

#include "agent/service_process.h"

// FuseMount: an export as a file, by libnbd's nbdfuse.
//
// The mount point is an empty regular file, made if need be. nbdfuse is a program of its own that
// outlives the agent; it cannot reconnect, so a mount is good for one life of the server, and
// is made again after the server's death. What a program has mapped of the old mount is lost to it
// (SIGBUS on pages that are not in memory, EIO on fsync): what it wrote and flushed is safe in the
// server's overlay.
//
// The kernel's page cache of the file is dropped when somebody opens it, whole, after dirty pages
// were written (FUSE without FOPEN_KEEP_CACHE; measured on Linux 6.1 and 6.18). It is the only way
// to drop it with nbdfuse.
//
// Threads: one at a time.

namespace zbig {

class FuseMount {
 public:
  // `path`: of the file. `lock_path`, `log_path`: of the nbdfuse process.
  FuseMount(std::string path, std::string lock_path, std::string log_path);

  // The path of the file that a mount asked for at `wanted` gets: in it, if it is a folder, named
  // `name`; otherwise itself. Throws Invalid for what is there and is no empty file, Busy for what
  // is mounted there.
  static std::string node_for(const std::string& wanted, const std::string& name);

  // Makes the mount point (an empty file) if need be; true if it was made.
  static bool make_mount_point(const std::string& path);

  // The mount point must be there. Throws Unavailable if this machine has no FUSE, Failed if the
  // mount does not come up.
  void mount(const std::string& uri, bool read_only, const std::string& server_tag);
  // Takes over the mount that an earlier agent made to the server `server_tag`, if it is there.
  bool adopt(const std::string& server_tag);
  // Throws Busy while a program has the file open or mapped.
  void unmount();
  // Takes it away whoever uses it, dead or alive.
  void unmount_by_force();

  // Brings what programs wrote to mapped pages to the server, has it flushed there, and drops the
  // kernel's cache of the file.
  void sync(std::chrono::milliseconds timeout) const;

  bool alive() const { return process_ && process_->alive(); }
  int pidfd() const { return process_ ? process_->pidfd() : -1; }

 private:
  bool mounted() const;

  std::string path_;
  std::string lock_path_;
  std::string log_path_;
  std::optional<ServiceProcess> process_;
};

}  // namespace zbig
