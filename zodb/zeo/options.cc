// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/options.h"

#include <charconv>
#include <filesystem>

#include "zodb/error.h"
#include "zodb/url.h"

namespace zbig::zeo {
namespace {

constexpr std::string_view kScheme = "zeo://";
constexpr std::uint16_t kDefaultPort = 9991;   // zodburi's
constexpr std::uint64_t kMostSeconds = 86400;  // a day
constexpr std::uint64_t kMostCache = std::uint64_t{1} << 40;

class Parser {
 public:
  explicit Parser(std::string_view url) : url_(url) {}

  Options parse() {
    if (!url_.starts_with(kScheme)) invalid("it does not begin with zeo://");
    std::string_view rest = url_.substr(kScheme.size());
    std::string_view query;
    if (const auto mark = rest.find('?'); mark != std::string_view::npos) {
      query = rest.substr(mark + 1);
      rest = rest.substr(0, mark);
    }
    Options options;
    options.address = rest.starts_with('/') ? socket(rest) : host(rest);
    for (const auto& [name, value] : parse_query(query, url_)) set(options, name, value);
    if (options.tls && options.tls->authenticate.empty()) {
      invalid("TLS needs ssl_authenticate=FILE: whom to trust");
    }
    return options;
  }

 private:
  [[noreturn]] void invalid(const std::string& what) const {
    throw Invalid("database '" + std::string(url_) + "': " + what);
  }

  std::uint64_t number(std::string_view name, std::string_view text, std::uint64_t most) const {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value > most) {
      invalid(std::string(name) + "=" + std::string(text) + ": not a number up to " +
              std::to_string(most));
    }
    return value;
  }

  Address socket(std::string_view rest) const {
    Address address;
    address.path = std::filesystem::path(percent_decode(rest, url_)).lexically_normal().string();
    if (address.path.size() > 107) invalid("the path of a socket has at most 107 bytes");
    return address;
  }

  Address host(std::string_view rest) const {
    Address address;
    std::string_view port;
    if (rest.starts_with('[')) {  // IPv6
      const auto end = rest.find(']');
      if (end == std::string_view::npos) invalid("']' is missing");
      address.host = rest.substr(1, end - 1);
      port = rest.substr(end + 1);
    } else {
      const auto colon = rest.find(':');
      address.host = percent_decode(rest.substr(0, colon), url_);
      if (colon != std::string_view::npos) port = rest.substr(colon);
    }
    if (address.host.empty() || address.host.find('/') != std::string::npos ||
        (!port.empty() && port[0] != ':')) {
      invalid("write zeo://HOST:PORT or zeo:///PATH/OF/SOCKET");
    }
    address.port = kDefaultPort;
    if (!port.empty()) {
      address.port = static_cast<std::uint16_t>(number("the port", port.substr(1), 65535));
      if (address.port == 0) invalid("port 0");
    }
    return address;
  }

  std::uint64_t size(std::string_view name, std::string_view text) const {
    std::uint64_t unit = 1;
    for (const auto& [suffix, bytes] : {std::pair<std::string_view, std::uint64_t>{"KB", 1u << 10},
                                        {"MB", 1u << 20},
                                        {"GB", 1u << 30}}) {
      if (!text.ends_with(suffix)) continue;
      text.remove_suffix(suffix.size());
      unit = bytes;
    }
    return unit * number(name, text, kMostCache / unit);
  }

  bool boolean(std::string_view name, std::string_view text) const {
    if (text == "true" || text == "1" || text == "yes" || text == "on") return true;
    if (text == "false" || text == "0" || text == "no" || text == "off") return false;
    invalid(std::string(name) + "=" + std::string(text) + ": write true or false");
  }

  void set(Options& options, const std::string& name, const std::string& value) const {
    if (name == "storage") {
      options.storage = value;
    } else if (name == "wait_timeout") {
      options.wait_timeout = std::chrono::seconds(number(name, value, kMostSeconds));
      if (options.wait_timeout.count() == 0) invalid("wait_timeout=0: nothing could be waited for");
    } else if (name == "cache_size") {
      options.cache_size = size(name, value);
    } else if (name.starts_with("ssl_")) {
      set_tls(options, name, value);
    } else {
      invalid("there is no option '" + name + "'");
    }
  }

  void set_tls(Options& options, const std::string& name, const std::string& value) const {
    if (!options.tls) options.tls.emplace();
    if (name == "ssl_authenticate") {
      options.tls->authenticate = value;
    } else if (name == "ssl_certificate") {
      options.tls->certificate = value;
    } else if (name == "ssl_key") {
      options.tls->key = value;
    } else if (name == "ssl_check_hostname") {
      options.tls->check_hostname = boolean(name, value);
    } else if (name == "ssl_server_hostname") {
      options.tls->server_hostname = value;
    } else {
      invalid("there is no option '" + name + "'");
    }
  }

  const std::string_view url_;
};

}  // namespace

std::string Address::text() const {
  if (host.empty()) return path;
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Options Options::parse(std::string_view url) { return Parser(url).parse(); }

std::string Options::url() const {
  const Options defaults;
  std::string out(kScheme);
  out += percent_encode(address.text());
  const auto text = [](const std::string& value) { return percent_encode(value, "&=+"); };
  out += "?storage=" + text(storage);
  const auto add = [&](const char* name, const std::string& value) {
    out += std::string("&") + name + "=" + text(value);
  };
  if (wait_timeout != defaults.wait_timeout) {
    add("wait_timeout",
        std::to_string(std::chrono::duration_cast<std::chrono::seconds>(wait_timeout).count()));
  }
  if (cache_size != defaults.cache_size) add("cache_size", std::to_string(cache_size));
  if (tls) {
    add("ssl_authenticate", tls->authenticate);
    if (!tls->certificate.empty()) add("ssl_certificate", tls->certificate);
    if (!tls->key.empty()) add("ssl_key", tls->key);
    if (!tls->check_hostname) add("ssl_check_hostname", "false");
    if (!tls->server_hostname.empty()) add("ssl_server_hostname", tls->server_hostname);
  }
  return out;
}

}  // namespace zbig::zeo
