// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <thread>

#include "agent/fd.h"

// HttpServer: HTTP/1.1 on a Unix socket, one request a connection, a thread for each.
//
// A request may take long (a commit), so requests do not share threads, and there are at most
// kMaxConnections; a client that comes above that is told so at once (503). What a client may send
// is bounded in size and time; an answer waits for a slow reader for at most as long.
// A client that goes away does not stop what it asked for.
//
// Boost.Beast parses and writes; it stays in http_server.cc.

namespace zbig {

struct HttpRequest {
  std::string method;
  std::string target;  // path and query, as sent
  std::string body;
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

  // `listener`: a listening, non-blocking socket. Serves until destroyed; the destructor waits for
  // the requests under way.
  HttpServer(Fd listener, HttpHandler handler);
  ~HttpServer();

 private:
  struct Connection {
    std::jthread thread;
    bool ended = false;  // guarded by mutex_
  };
  void accept_all(std::stop_token stop);
  void join_ended();

  Fd listener_;
  HttpHandler handler_;
  std::mutex mutex_;
  std::list<Connection> connections_;  // the accepting thread's, but for `ended`
  std::jthread acceptor_;
};

}  // namespace zbig
