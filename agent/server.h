// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "agent/control_client.h"
#include "agent/fd.h"
#include "agent/service_process.h"
#include "zodb/ids.h"

// Server: the nbdkit process of one database, and what can be asked of it.
//
// It is started in a session of its own and outlives the agent; the next agent finds it by its lock
// file (agent/service_process.h) and takes it over. Its sockets are in the runtime folder; lock,
// log and the rest in STATE/servers/ID, where ID is made from the state folder and the URL, so that
// two agents never meet in one folder.
//
// Threads: ensure_running() and stop() from one thread at a time (the database's gate); requests
// from any.

namespace zbig {

// One spelling for each database: a path of a Data.fs, or a file: URL, becomes the canonical path.
std::string canonical_url(const std::string& url);

// "nbd+unix:///EXPORT?socket=PATH", with what needs it percent-encoded.
std::string nbd_uri(const std::string& socket_path, const std::string& export_name);

// A device as the server tells of it.
struct ServedDevice {
  std::string device;
  std::string export_name;
  Tid at;
  std::uint64_t size = 0;
  std::uint64_t volume_size = 0;
  std::uint64_t dirty_bytes = 0;   // of the layer that is being written
  std::uint64_t frozen_bytes = 0;  // of a commit under way
  std::uint64_t overlay_bytes = 0;
  bool settled = false;  // nobody has copies of pages of an older view
  bool stale = false;    // reads fail while nothing is dirty
  std::string full;      // why writers wait for room; empty if none does
  std::string error;
};

class Server {
 public:
  struct Places {
    std::string state_directory;
    std::string runtime_directory;  // of the agent's socket; FUSE files below dev/
    std::string sockets_directory;  // of the servers' sockets
    std::string plugin;             // nbdkit-zbig-plugin.so, or "zbig" for nbdkit to find
    std::string fuse_program;       // zbig-fuse, or that for $PATH to have
  };
  // `stop`: of the agent.
  Server(const Places& places, std::string url, std::stop_token stop);

  // Takes over a running server or starts one; true if it was started (and knows no device). Throws
  // the server's own error (NotFound, Corrupt, ...: its last line), Unavailable.
  bool ensure_running();
  bool alive() const { return process_ && process_->alive(); }
  int pidfd() const { return process_ ? process_->pidfd() : -1; }
  pid_t pid() const { return process_ ? process_->pid() : 0; }
  // Ends it if it is there and does not answer within `patience`; what it was asked fails then. Any
  // thread.
  void end_if_stuck(std::chrono::milliseconds patience) const;
  // Ends it and removes its files.
  void stop();

  const std::string& nbd_socket() const { return nbd_socket_; }
  const std::stop_token& stop_token() const { return stop_; }
  // Where the front end of a device listens: beside the server's sockets, for paths of sockets are
  // short.
  std::string front_end_socket(const std::string& device) const;

  // --- requests (docs/control-protocol.md)
  static constexpr std::chrono::milliseconds kDeadline{20000};

  // After a look at the database. Throws what is wrong with that.
  Tid last_tid(std::chrono::milliseconds timeout) const;
  std::map<std::string, ServedDevice> status(std::chrono::milliseconds timeout) const;
  Json request(const Json& request, std::chrono::milliseconds timeout = kDeadline) const;
  // The same; `passed`: for the file that comes with the reply.
  Json request(const Json& request, Fd& passed) const;

 private:
  void start();

  std::string url_;
  std::stop_token stop_;
  std::string plugin_;
  std::string sockets_directory_;
  std::string folder_;
  std::string nbd_socket_;
  std::unique_ptr<ControlClient> control_;
  std::optional<ServiceProcess> process_;
};

}  // namespace zbig
