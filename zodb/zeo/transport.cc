// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/transport.h"

#include <condition_variable>
#include <deque>
#include <filesystem>
#include <mutex>
#include <optional>

#include <boost/asio/connect.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>
#include <netinet/tcp.h>

namespace zbig::zeo {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using Socket = asio::generic::stream_protocol::socket;
using TlsStream = asio::ssl::stream<Socket&>;
using asio::ip::tcp;

constexpr std::size_t kFramesAtOnce = 64;  // below IOV_MAX

asio::ssl::context tls_context(const TlsOptions& options) {
  asio::ssl::context context(asio::ssl::context::tls_client);
  const auto check = [](const error_code& error, const std::string& what) {
    if (error) throw Invalid(what + ": " + error.message());
  };
  error_code error;
  context.set_verify_mode(asio::ssl::verify_peer);
  std::error_code ignored;
  if (std::filesystem::is_directory(options.authenticate, ignored)) {
    context.add_verify_path(options.authenticate, error);
  } else {
    context.load_verify_file(options.authenticate, error);
  }
  check(error, "ssl_authenticate=" + options.authenticate);
  if (options.certificate.empty()) return context;
  context.use_certificate_chain_file(options.certificate, error);
  check(error, "ssl_certificate=" + options.certificate);
  const std::string& key = options.key.empty() ? options.certificate : options.key;
  context.use_private_key_file(key, asio::ssl::context::pem, error);
  check(error, "ssl_key=" + key);
  return context;
}

class AsioTransport : public Transport, public std::enable_shared_from_this<AsioTransport> {
 public:
  AsioTransport(Loop& loop, const Options& options, std::weak_ptr<Receiver> receiver)
      : options_(options),
        loop_(loop),
        socket_(loop.context()),
        resolver_(loop.context()),
        receiver_(std::move(receiver)) {
    if (options.tls) {
      context_.emplace(tls_context(*options.tls));
      // A server's own certificate may be trusted as it is, without its CA.
      X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context_->native_handle()),
                                  X509_V_FLAG_PARTIAL_CHAIN);
      tls_.emplace(socket_, *context_);
    }
  }

  void start() {
    loop_.post([self = shared_from_this()] { self->connect(); });
  }

  void send(Bytes frame) override {
    bool wake = false;
    {
      const std::lock_guard lock(mutex_);
      if (closed_) return;
      waiting_ += frame.size();
      wake = out_.empty();
      out_.push_back(std::move(frame));
    }
    if (wake) loop_.post([self = shared_from_this()] { self->write(); });
  }

  bool wait_for_room(std::size_t most, std::chrono::milliseconds patience) override {
    std::unique_lock lock(mutex_);
    while (waiting_ > most && !closed_) {
      const std::size_t before = waiting_;
      if (!went_out_.wait_for(lock, patience, [&] { return waiting_ < before || closed_; })) {
        return false;
      }
    }
    return !closed_;
  }

  void close(const Error& why) override {
    loop_.post([self = shared_from_this(), why] { self->end(why); });
  }

 private:
  // --- the loop's thread

  void end(const Error& why) {
    if (ended_) return;
    ended_ = true;
    error_code ignored;
    resolver_.cancel();
    socket_.close(ignored);
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
      went_out_.notify_all();
    }
    // Not from within whatever noticed it.
    loop_.post([receiver = receiver_, why] {
      if (const auto told = receiver.lock()) told->on_closed(why);
    });
  }

  void end(const std::string& what, const error_code& error) {
    if (error == asio::error::eof || error == asio::ssl::error::stream_truncated) {
      end(Unavailable(what + ": the server closed the connection"));
    } else if (error.category() == asio::error::get_ssl_category()) {
      end(Failed(what + ": TLS: " + error.message()));
    } else {
      end(Unavailable(what + ": " + error.message()));
    }
  }

  void connect() {
    const Address& address = options_.address;
    if (address.host.empty()) {
      connect_to({asio::local::stream_protocol::endpoint(address.path)});
      return;
    }
    resolver_.async_resolve(address.host, std::to_string(address.port),
                            [self = shared_from_this()](const error_code& error,
                                                        const tcp::resolver::results_type& got) {
                              if (error) return self->end("looking up its address", error);
                              std::vector<asio::generic::stream_protocol::endpoint> endpoints;
                              for (const auto& entry : got)
                                endpoints.emplace_back(entry.endpoint());
                              self->connect_to(std::move(endpoints));
                            });
  }

  void connect_to(std::vector<asio::generic::stream_protocol::endpoint> endpoints) {
    if (ended_) return;
    endpoints_ = std::move(endpoints);
    asio::async_connect(socket_, endpoints_.begin(), endpoints_.end(),
                        [self = shared_from_this()](const error_code& error, auto) {
                          if (error) return self->end("connecting", error);
                          self->connected();
                        });
  }

  void set(int level, int option, int value) {
    static_cast<void>(::setsockopt(socket_.native_handle(), level, option, &value, sizeof value));
  }

  void connected() {
    if (!options_.address.host.empty()) {
      set(IPPROTO_TCP, TCP_NODELAY, 1);
      set(SOL_SOCKET, SO_KEEPALIVE, 1);
      set(IPPROTO_TCP, TCP_KEEPIDLE, 10);
      set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
      set(IPPROTO_TCP, TCP_KEEPCNT, 4);
      set(IPPROTO_TCP, TCP_USER_TIMEOUT, 30000);
    }
    if (!tls_) return begin();
    const TlsOptions& tls = *options_.tls;
    const std::string name =
        tls.server_hostname.empty() ? options_.address.host : tls.server_hostname;
    if (!name.empty()) SSL_set_tlsext_host_name(tls_->native_handle(), name.c_str());
    if (tls.check_hostname) tls_->set_verify_callback(asio::ssl::host_name_verification(name));
    tls_->async_handshake(TlsStream::client, [self = shared_from_this()](const error_code& error) {
      if (error) return self->end("greeting", error);
      self->begin();
    });
  }

  void begin() {
    connected_ = true;
    read();
    write();
  }

  void read() {
    const auto room = reader_.room();
    const auto buffer = asio::buffer(room.data(), room.size());
    auto done = [self = shared_from_this()](const error_code& error, std::size_t size) {
      self->on_read(error, size);
    };
    if (tls_) {
      tls_->async_read_some(buffer, std::move(done));
    } else {
      socket_.async_read_some(buffer, std::move(done));
    }
  }

  void on_read(const error_code& error, std::size_t size) {
    if (ended_) return;
    if (error) return end("reading", error);
    try {
      reader_.advance(size, [this](Frame frame) {
        const auto receiver = receiver_.lock();
        if (receiver && !ended_) receiver->on_frame(std::move(frame));
      });
    } catch (const Error& broken) {
      return end(broken);
    }
    if (!ended_) read();
  }

  void write() {
    if (!connected_ || ended_ || writing_) return;
    std::vector<asio::const_buffer> buffers;
    {
      const std::lock_guard lock(mutex_);
      // They stay where they are until they are written; only the loop takes them out.
      for (std::size_t i = 0; i < out_.size() && i < kFramesAtOnce; ++i) {
        buffers.emplace_back(out_[i].data(), out_[i].size());
      }
    }
    if (buffers.empty()) return;
    writing_ = true;
    const std::size_t frames = buffers.size();
    auto done = [self = shared_from_this(), frames](const error_code& error, std::size_t size) {
      self->on_written(error, size, frames);
    };
    if (tls_) {
      asio::async_write(*tls_, buffers, std::move(done));
    } else {
      asio::async_write(socket_, buffers, std::move(done));
    }
  }

  void on_written(const error_code& error, std::size_t size, std::size_t frames) {
    writing_ = false;
    if (ended_) return;
    if (error) return end("writing", error);
    bool more = false;
    {
      const std::lock_guard lock(mutex_);
      out_.erase(out_.begin(), out_.begin() + static_cast<std::ptrdiff_t>(frames));
      waiting_ -= size;
      went_out_.notify_all();
      more = !out_.empty();
    }
    if (more) write();
  }

  const Options options_;
  Loop& loop_;
  Socket socket_;
  std::optional<asio::ssl::context> context_;
  std::optional<TlsStream> tls_;
  tcp::resolver resolver_;
  std::vector<asio::generic::stream_protocol::endpoint> endpoints_;
  const std::weak_ptr<Receiver> receiver_;
  FrameReader reader_;
  bool connected_ = false;
  bool writing_ = false;
  bool ended_ = false;

  mutable std::mutex mutex_;
  std::condition_variable went_out_;
  // Guarded by mutex_.
  std::deque<Bytes> out_;
  std::size_t waiting_ = 0;  // bytes in it
  bool closed_ = false;
};

}  // namespace

std::shared_ptr<Transport> Transport::open(Loop& loop, const Options& options,
                                           std::weak_ptr<Receiver> receiver) {
  auto transport = std::make_shared<AsioTransport>(loop, options, std::move(receiver));
  transport->start();
  return transport;
}

}  // namespace zbig::zeo
