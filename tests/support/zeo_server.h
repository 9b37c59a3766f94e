// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "tests/support/temp_dir.h"

// A real ZEO server over a database of its own, by tests/peers/zeo-server.

namespace zbig::test {

class ZeoServer {
 public:
  struct Options {
    std::string environment = "py3";  // py3: ZEO 6, py2: ZEO 5
    std::string conf = {};            // lines of the <zeo> section
    std::string data = {};            // a Data.fs to begin with; nothing: an empty database
    bool unix_socket = false;
  };
  // Nothing where the peers are not installed.
  static std::unique_ptr<ZeoServer> start(const Options& options);
  ~ZeoServer();

  const std::string& url() const { return url_; }
  std::string file() const { return dir_ / "Data.fs"; }
  std::string folder() const { return dir_.path().string(); }

  void stop();         // SIGTERM
  void kill();         // SIGKILL, and waits
  void start_again();  // on the same address
  void freeze();       // SIGSTOP
  void thaw();         // SIGCONT

 private:
  explicit ZeoServer(const Options& options) : options_(options) {}
  std::string script(const std::string& verb);
  void signal(int number);

  const Options options_;
  TempDir dir_;
  std::string url_;
};

}  // namespace zbig::test
