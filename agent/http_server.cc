// SPDX-License-Identifier: BSD-3-Clause
#include "agent/http_server.h"

#include <array>
#include <cerrno>
#include <chrono>
#include <optional>
#include <sstream>

#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/buffers_range.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <poll.h>
#include <sys/socket.h>

#include "agent/log.h"
#include "zodb/error.h"

namespace zbig {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;
using Clock = std::chrono::steady_clock;
using boost::system::error_code;
using std::chrono::milliseconds;

constexpr std::uint32_t kMaxHeader = 16u << 10;
constexpr std::uint64_t kMaxBody = 256u << 10;
constexpr std::uint64_t kMaxUpload = std::uint64_t{1} << 62;
constexpr milliseconds kPatience{10000};
constexpr milliseconds kIdle{30000};
constexpr milliseconds kLinger{2000};

// A socket as Beast wants a stream, with a deadline for everything.
class Stream {
 public:
  Stream(int fd, milliseconds patience) : fd_(fd) { extend(patience); }
  void extend(milliseconds patience) { deadline_ = Clock::now() + patience; }

  template <class Buffers>
  std::size_t read_some(const Buffers& buffers, error_code& error) {
    return transfer(buffers, POLLIN, error,
                    [this](void* data, std::size_t size) { return ::recv(fd_, data, size, 0); });
  }
  template <class Buffers>
  std::size_t write_some(const Buffers& buffers, error_code& error) {
    return transfer(buffers, POLLOUT, error, [this](const void* data, std::size_t size) {
      return ::send(fd_, data, size, MSG_NOSIGNAL);
    });
  }
  template <class Buffers>
  std::size_t read_some(const Buffers& buffers) {
    error_code error;
    const std::size_t n = read_some(buffers, error);
    if (error) throw boost::system::system_error(error);
    return n;
  }
  template <class Buffers>
  std::size_t write_some(const Buffers& buffers) {
    error_code error;
    const std::size_t n = write_some(buffers, error);
    if (error) throw boost::system::system_error(error);
    return n;
  }

 private:
  template <class Buffers, class Call>
  std::size_t transfer(const Buffers& buffers, short event, error_code& error, Call call) {
    error = {};
    for (const auto buffer : beast::buffers_range_ref(buffers)) {
      if (buffer.size() == 0) continue;
      while (true) {
        const ssize_t n = call(buffer.data(), buffer.size());
        if (n > 0) return static_cast<std::size_t>(n);
        if (n == 0) {
          error = http::error::end_of_stream;
          return 0;
        }
        if (errno == EINTR) continue;
        if (errno != EAGAIN) {
          error = error_code(errno, boost::system::system_category());
          return 0;
        }
        const auto left = std::chrono::duration_cast<milliseconds>(deadline_ - Clock::now());
        pollfd item{.fd = fd_, .events = event, .revents = 0};
        if (left.count() <= 0 || ::poll(&item, 1, static_cast<int>(left.count())) == 0) {
          error = error_code(ETIMEDOUT, boost::system::system_category());
          return 0;
        }
      }
    }
    return 0;
  }

  int fd_;
  Clock::time_point deadline_;
};

void answer(int fd, const HttpResponse& response, bool keep = false) {
  http::response<http::string_body> message;
  message.version(11);
  message.result(response.status);
  message.set(http::field::content_type, "application/json");
  message.set(http::field::server, "zbigd");
  message.keep_alive(keep);
  message.body() = response.body;
  message.prepare_payload();
  // In one piece: written as it is made, it would be a system call for each field.
  std::ostringstream whole;
  whole << message;
  const std::string text = whole.str();
  Stream stream(fd, kPatience);
  error_code error;
  boost::asio::write(stream, boost::asio::buffer(text), error);  // a client may have gone away
}

HttpResponse refusal(unsigned status, const std::string& code, const std::string& sentence) {
  return {status, R"({"error":{"code":")" + code + R"(","message":")" + sentence + "\"}}\n"};
}

class Upload final : public HttpUpload {
 public:
  Upload(Stream& stream, beast::flat_buffer& buffer,
         http::request_parser<http::empty_body>&& header)
      : stream_(stream), buffer_(buffer), parser_(std::move(header)) {
    parser_.body_limit(boost::none);
  }

  std::size_t read(std::span<std::byte> out) override {
    if (parser_.is_done()) return 0;
    auto& body = parser_.get().body();
    body.data = out.data();
    body.size = out.size();
    error_code error;
    stream_.extend(kPatience);
    http::read(stream_, buffer_, parser_, error);
    if (error && error != http::error::need_buffer) {
      throw Failed("the body of the request did not come whole: " + error.message());
    }
    return out.size() - body.size;
  }

 private:
  Stream& stream_;
  beast::flat_buffer& buffer_;
  http::request_parser<http::buffer_body> parser_;
};

// Tells the client, if it is still there, why its request was not understood.
void refuse(int fd, error_code why) {
  if (why == http::error::end_of_stream) return;
  if (why == http::error::body_limit) {
    answer(fd, refusal(413, "invalid", "the request's body is longer than 256 KiB"));
  } else if (why == error_code(ETIMEDOUT, boost::system::system_category())) {
    answer(fd, refusal(408, "invalid", "the request did not come whole in 10 s"));
  } else {
    answer(fd, refusal(400, "invalid", "no HTTP request that can be understood"));
  }
}

using HeaderParser = http::request_parser<http::empty_body>;

// What follows the header is for the handler to read.
void serve_upload(int fd, Stream& stream, beast::flat_buffer& buffer, HeaderParser&& header,
                  const HttpHandler& handler) {
  HttpRequest request{.method = std::string(header.get().method_string()),
                      .target = std::string(header.get().target()),
                      .body = {}};
  Upload upload(stream, buffer, std::move(header));
  request.upload = &upload;
  answer(fd, handler(request));
}

// Serves one request. True if the connection goes on.
bool serve_one(int fd, beast::flat_buffer& buffer, const HttpHandler& handler,
               const std::function<bool()>& may_keep) {
  HeaderParser header;
  header.header_limit(kMaxHeader);
  header.body_limit(kMaxUpload);  // of an upload; others have a smaller one, below
  Stream stream(fd, kPatience);
  error_code error;
  http::read_header(stream, buffer, header, error);
  if (!error && beast::iequals(header.get()[http::field::expect], "100-continue")) {
    http::response<http::empty_body> go_on;
    go_on.version(11);
    go_on.result(http::status::continue_);
    http::write(stream, go_on, error);
  }
  if (error) {
    refuse(fd, error);
    return false;
  }
  constexpr char kBytes[] = "application/octet-stream";
  if (beast::iequals(header.get()[http::field::content_type], kBytes)) {
    serve_upload(fd, stream, buffer, std::move(header), handler);
    return false;  // the body may not have been read to its end
  }
  // The parser looks at a length that was announced with the header only, at others as they come.
  const auto announced = header.content_length();
  if (announced && *announced > kMaxBody) {
    refuse(fd, http::error::body_limit);
    return false;
  }
  http::request_parser<http::string_body> parser(std::move(header));
  parser.body_limit(kMaxBody);
  http::read(stream, buffer, parser, error);
  if (error) {
    refuse(fd, error);
    return false;
  }
  const auto& request = parser.get();
  const HttpResponse response = handler({.method = std::string(request.method_string()),
                                         .target = std::string(request.target()),
                                         .body = request.body()});
  const bool keep = request.keep_alive() && may_keep();
  answer(fd, response, keep);
  return keep;
}

// Whether something comes, of a client that may take its time.
bool wait_for_next(int fd) {
  pollfd item{.fd = fd, .events = POLLIN, .revents = 0};
  return ::poll(&item, 1, static_cast<int>(kIdle.count())) > 0;
}

// Before the close of a connection on which more may come than was read: a close with bytes unread
// resets it, and a client that is still sending loses the answer.
void take_the_rest(int fd) {
  ::shutdown(fd, SHUT_WR);
  const auto deadline = Clock::now() + kLinger;
  std::array<char, 65536> rest;
  while (true) {
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now());
    pollfd item{.fd = fd, .events = POLLIN, .revents = 0};
    if (left.count() <= 0 || ::poll(&item, 1, static_cast<int>(left.count())) <= 0) return;
    if (::recv(fd, rest.data(), rest.size(), 0) <= 0) return;
  }
}

}  // namespace

HttpServer::HttpServer(Fd listener, HttpHandler handler)
    : listener_(std::move(listener)), handler_(std::move(handler)) {
  acceptor_ = std::jthread([this](std::stop_token stop) { accept_all(stop); });
}

HttpServer::~HttpServer() {
  acceptor_.request_stop();
  acceptor_.join();
  {
    // A request that is under way may still be answered.
    const std::lock_guard lock(mutex_);
    for (const Connection& connection : connections_) {
      if (connection.socket) ::shutdown(connection.socket.get(), SHUT_RD);
    }
  }
  connections_.clear();  // joins
}

void HttpServer::serve(int fd) {
  ++serving_;
  try {
    beast::flat_buffer buffer;
    const auto may_keep = [this] {
      return serving_ <= kMaxKept && !acceptor_.get_stop_token().stop_requested();
    };
    while (serve_one(fd, buffer, handler_, may_keep)) {
      if (buffer.size() == 0 && !wait_for_next(fd)) break;
    }
    take_the_rest(fd);
  } catch (const std::exception& error) {
    log_line(std::string("a request: ") + error.what());
  }
  --serving_;
}

void HttpServer::join_ended() {
  std::list<Connection> ended;
  const std::lock_guard lock(mutex_);
  for (auto at = connections_.begin(); at != connections_.end();) {
    const auto next = std::next(at);
    if (at->ended) ended.splice(ended.end(), connections_, at);
    at = next;
  }
}

void HttpServer::accept_all(std::stop_token stop) {
  while (!stop.stop_requested()) {
    pollfd item{.fd = listener_.get(), .events = POLLIN, .revents = 0};
    ::poll(&item, 1, 100);
    join_ended();
    if ((item.revents & POLLIN) == 0) continue;
    Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client) {
      if (errno == EMFILE || errno == ENFILE) {
        log_line("accept: out of file descriptors");
        std::this_thread::sleep_for(milliseconds(100));
      }
      continue;
    }
    if (connections_.size() >= kMaxConnections) {
      answer(client.get(), refusal(503, "unavailable", "too many requests at once"));
      continue;
    }
    Connection& connection = connections_.emplace_back();
    connection.socket = std::move(client);
    try {
      connection.thread = std::jthread([this, &connection, fd = connection.socket.get()] {
        serve(fd);
        const std::lock_guard lock(mutex_);
        connection.socket = Fd();
        connection.ended = true;
      });
    } catch (const std::system_error& error) {
      log_line(std::string("a request: no thread: ") + error.what());
      connections_.pop_back();
    }
  }
}

}  // namespace zbig
