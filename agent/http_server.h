// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <mutex>
#include <span>
#include <string>
#include <thread>

#include "agent/fd.h"

// HttpServer: HTTP/1.1 on a Unix socket, a thread for each connection.
//
// A request may take long (a commit), so requests do not share threads, and there are at most
// kMaxConnections; a client that comes above that is told so at once (503). What a client may send
// is bounded in size and time; an answer waits for a slow reader for at most as long. A connection
// may be kept for the next request: it ends when it has been idle for kIdle, or when there are
// many.
// A client that goes away does not stop what it asked for.
//
// Boost.Beast parses and writes; it stays in http_server.cc.

namespace zbig {

// A body that may be large (`Content-Type: application/octet-stream`), as it comes.
class HttpUpload {
 public:
  virtual ~HttpUpload() = default;
  // The next bytes; 0 at the end. Throws Failed if the client went away or is silent for long
  // before that.
  virtual std::size_t read(std::span<std::byte> out) = 0;
};

struct HttpRequest {
  std::string method;
  std::string target;            // path and query, as sent
  std::string body;              // unless
  HttpUpload* upload = nullptr;  // there is this, during the call only
};

struct HttpResponse {
  unsigned status = 200;
  std::string body;  // JSON
};

// Called on the connection's thread; must not throw.
using HttpHandler = std::function<HttpResponse(const HttpRequest&)>;

class HttpServer {
 public:
  static constexpr std::size_t kMaxConnections = 128;
  // Of more than so many, none is kept for another request.
  static constexpr std::size_t kMaxKept = 64;

  // `listener`: a listening, non-blocking socket. Serves until destroyed; the destructor waits for
  // the requests under way.
  HttpServer(Fd listener, HttpHandler handler);
  ~HttpServer();

 private:
  struct Connection {
    Fd socket;           // guarded by mutex_: its thread closes it
    bool ended = false;  // guarded by mutex_
    std::jthread thread;
  };
  void accept_all(std::stop_token stop);
  void serve(int fd);
  void join_ended();

  Fd listener_;
  HttpHandler handler_;
  std::mutex mutex_;
  std::list<Connection> connections_;  // the accepting thread's
  std::atomic<std::size_t> serving_ = 0;
  std::jthread acceptor_;
};

}  // namespace zbig
