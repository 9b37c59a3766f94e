// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

// What a zeo:// URL says.
//
//   zeo://HOST:PORT?OPTIONS        zeo:///PATH/OF/SOCKET?OPTIONS
//
//   storage=1            the storage's name in the server's configuration
//   wait_timeout=30      seconds that a call may take, connecting again included
//   cache_size=64MB      of records in memory; with KB, MB, GB or without
//   ssl_authenticate=FILE       TLS: certificates of the servers (or of their CA) that are trusted
//   ssl_certificate=FILE        TLS: the client's certificate, which servers ask for
//   ssl_key=FILE                TLS: its key; ssl_certificate's file if not given
//   ssl_check_hostname=false    TLS: accept a certificate for another host
//   ssl_server_hostname=NAME    TLS: the name that the certificate must have, if not HOST
//
// Any ssl_ option means TLS.

namespace zbig::zeo {

struct Address {
  std::string host;  // empty: a Unix socket
  std::uint16_t port = 0;
  std::string path;

  // "zeo.example.org:8100", "/run/zeo.sock", as messages name it.
  std::string text() const;
};

struct TlsOptions {
  std::string authenticate;
  std::string certificate;
  std::string key;
  bool check_hostname = true;
  std::string server_hostname;
};

struct Options {
  Address address;
  std::string storage = "1";
  std::chrono::milliseconds wait_timeout{30000};
  std::uint64_t cache_size = 64u << 20;
  std::optional<TlsOptions> tls;

  // Throws Invalid.
  static Options parse(std::string_view url);
  // A URL that says the same, the same one however it was spelled.
  std::string url() const;
};

}  // namespace zbig::zeo
