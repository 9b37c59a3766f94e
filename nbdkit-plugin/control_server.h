// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include <sys/types.h>

#include "nbdkit-plugin/file.h"

// ControlServer: lines in, lines out, on a Unix socket (docs/control-protocol.md).
//
// A thread accepts, and each connection has one of its own, so an operation that waits for a disk
// or a storage keeps no other connection waiting (a status must never hang). At most 64
// connections; a further one is refused with a line that says so.
//
// Who may connect: processes of our own user, and root. The socket file has mode 0600, and the
// kernel tells who the peer is.
//
// One server a path: a lock on PATH.lock, held for life, tells a live server from the socket file
// that a killed one left behind. (Connecting to see whether somebody answers would let two servers
// that start at once take the file from each other.) The lock file stays.

namespace zbig {

class ControlServer {
 public:
  struct Reply {
    std::string line;                  // without the newline
    std::shared_ptr<const File> file;  // what is passed with it; may be null
    std::function<void()> afterwards;
  };
  // Called by the threads of connections. Must throw nothing but bad_alloc.
  using Answer = std::function<Reply(std::string_view line)>;
  // What a line that is too long, or a connection too many, is answered.
  using Refuse = std::function<std::string(const std::string& sentence)>;

  static constexpr std::size_t kMaxLine = 1u << 20;

  // Binds and listens; starts no thread. Throws Busy if another server has the path, Invalid if the
  // path is too long for a socket or something else than a socket is there.
  explicit ControlServer(std::string path);
  // Ends every connection, after the request that it is working on; removes the socket.
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  void start(Answer answer, Refuse refuse);

 private:
  struct Connection {
    File socket;
    std::atomic<bool> ended = false;
    std::jthread thread;
  };

  void accept_all();
  void serve(const File& socket) const;

  const std::string path_;
  File lock_;
  File listener_;
  File stop_;        // an eventfd: readable when the server stops
  pid_t owner_ = 0;  // who called start(): the process that forked it must not remove the socket
  Answer answer_;
  Refuse refuse_;
  std::list<Connection> connections_;  // of the accepting thread
  std::jthread acceptor_;
};

}  // namespace zbig
