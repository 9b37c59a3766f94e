// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "agent/control_client.h"
#include "agent/service_process.h"

// FuseMount: an export as a file, by zbig-fuse (agent/fuse/, docs/fuse-control.md).
//
// zbig-fuse is a program of its own that outlives the agent. It finds the server again by itself
// when that was started anew, and programs that have the file open or mapped notice nothing of it:
// so it is left alone as long as it lives, and the next agent takes it over.
//
// F1  The agent never has the file itself open: closing it would write dirty pages, and hang while
//     the server is away. Whatever needs it open is asked of zbig-fuse.
// F2  Requests that wait for the server (sync, invalidate) are given up as soon as it has ended:
//     whoever asks holds the database's gate, and nobody else would start it again.
//
// Threads: one at a time.

namespace zbig {

class FuseMount {
 public:
  struct Places {
    std::string path;  // of the file
    std::string lock;  // of the process, its log, and the socket that it listens at
    std::string log;
    std::string control;
    std::string program;  // zbig-fuse
  };
  explicit FuseMount(Places places) : places_(std::move(places)), control_(places_.control) {}

  // The path of the file that a mount asked for at `wanted` gets: in it, if it is a folder, named
  // `name`; otherwise itself. Throws Invalid for what is there and is no empty file, Busy for what
  // is mounted there.
  static std::string node_for(const std::string& wanted, const std::string& name);

  // Returns when programs can use the file. Throws Unavailable if this machine has no FUSE, Failed
  // if it does not come up.
  void start(const std::string& uri, bool read_only);
  // Takes over the process that an earlier agent started for the same export; false if there is
  // none, and then nothing is left of what there was.
  bool adopt(const std::string& uri);
  // Throws Busy while a program has the file open or mapped.
  void end();
  // Takes it away whoever uses it, dead or alive. What is dirty in the kernel is lost.
  void end_by_force();

  // Brings what programs wrote to mapped pages to the server, and has it flushed there. `server`:
  // its pidfd (F2). Throws Unavailable, NoSpace, Failed.
  void sync(int server, std::chrono::milliseconds timeout) const;
  // Drops pages from the kernel, from every program's mappings. `moved`: with `extents` or `whole`,
  // as the server replies when it moves a view. Dirty pages among them are written to the server
  // first; afterwards no write that was made on an old page is on its way.
  void invalidate(const Json& moved, int server, std::chrono::milliseconds timeout) const;

  bool alive() const { return process_ && process_->alive(); }
  int pidfd() const { return process_ ? process_->pidfd() : -1; }

 private:
  const Places places_;
  const ControlClient control_;
  std::optional<ServiceProcess> process_;
};

}  // namespace zbig
