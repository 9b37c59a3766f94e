// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/zeo_server.h"

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "tests/support/paths.h"

namespace zbig::test {

std::unique_ptr<ZeoServer> ZeoServer::start(const Options& options) {
  const char* const peers = std::getenv("PEERS");
  if (peers == nullptr) return nullptr;
  if (!std::filesystem::exists(std::string(peers) + "/" + options.environment + "/bin/python")) {
    return nullptr;
  }
  std::unique_ptr<ZeoServer> server(new ZeoServer(options));
  if (!options.data.empty()) std::filesystem::copy_file(options.data, server->file());
  server->start_again();
  return server;
}

ZeoServer::~ZeoServer() {
  try {
    thaw();
    stop();
  } catch (const std::exception&) {
  }
}

std::string ZeoServer::script(const std::string& verb) {
  std::string command = "PEER_ENV=" + options_.environment + " ZEO_OPTIONS='" + options_.conf + "'";
  if (options_.unix_socket) command += " ZEO_SOCKET='" + (dir_ / "zeo.sock") + "'";
  command += " '" + repository("tests/peers/zeo-server") + "' " + verb + " '" + folder() + "' 2>&1";
  FILE* const pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("cannot run " + command);
  std::string output;
  std::array<char, 4096> part;
  for (std::size_t got; (got = std::fread(part.data(), 1, part.size(), pipe)) != 0;) {
    output.append(part.data(), got);
  }
  if (::pclose(pipe) != 0) throw std::runtime_error(command + " failed:\n" + output);
  while (output.ends_with('\n')) output.pop_back();
  return output;
}

void ZeoServer::start_again() { url_ = script("start"); }
void ZeoServer::stop() { script("stop"); }

void ZeoServer::signal(int number) {
  int pid = 0;
  std::ifstream(dir_ / "zeo.pid") >> pid;
  if (pid > 1) ::kill(pid, number);
}

void ZeoServer::kill() {
  int pid = 0;
  std::ifstream(dir_ / "zeo.pid") >> pid;
  signal(SIGKILL);
  for (int i = 0; i < 1000 && ::kill(pid, 0) == 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  std::filesystem::remove(dir_ / "zeo.pid");
}

void ZeoServer::freeze() { signal(SIGSTOP); }
void ZeoServer::thaw() { signal(SIGCONT); }

}  // namespace zbig::test
