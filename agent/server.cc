// SPDX-License-Identifier: BSD-3-Clause
#include "agent/server.h"

#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include "agent/files.h"
#include "agent/hinted_error.h"
#include "agent/log.h"
#include "zodb/error.h"
#include "zodb/error_word.h"
#include "zodb/zeo/zeo.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

// Opening a big database without an index reads it all.
constexpr milliseconds kStartDeadline{10 * 60 * 1000};
constexpr off_t kMaxLog = 4 << 20;

// 16 hex digits that name the pair (FNV-1a); chance meetings are no danger: the server says which
// database it serves.
std::string id_of(const std::string& folder, const std::string& name) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : folder + '\0' + name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return Oid{hash}.hex();
}

Tid tid_of(const Json& json, const char* key) {
  const auto tid = json.contains(key) && json[key].is_string()
                       ? Tid::parse_hex(json[key].get<std::string>())
                       : std::nullopt;
  if (!tid) throw Failed(std::string("the server's reply has no tid in ") + key);
  return *tid;
}

std::uint64_t number_of(const Json& json, const char* key) {
  return json.contains(key) && json[key].is_number_unsigned() ? json[key].get<std::uint64_t>() : 0;
}

std::string text_of(const Json& json, const char* key) {
  return json.contains(key) && json[key].is_string() ? json[key].get<std::string>() : "";
}

// nbdkit writes "nbdkit: error: SENTENCE"; the plugin's sentence is what the user wants.
std::string without_prefix(std::string line) {
  for (const std::string_view prefix : {"nbdkit: ", "error: ", "zbig: "}) {
    if (line.starts_with(prefix)) line.erase(0, prefix.size());
  }
  return line;
}

}  // namespace

std::string canonical_url(const std::string& url) {
  constexpr std::string_view kFile = "file://";
  if (url.starts_with("zeo://")) return canonical_zeo_url(url);
  if (url.starts_with(kFile)) return canonical_path(url.substr(kFile.size()));
  if (url.find("://") != std::string::npos) return url;
  return canonical_path(url);
}

std::string nbd_uri(const std::string& socket_path, const std::string& export_name) {
  const auto encode = [](const std::string& text, std::string_view kept) {
    std::string out;
    for (const char c : text) {
      if (std::isalnum(static_cast<unsigned char>(c)) || kept.find(c) != std::string_view::npos) {
        out += c;
      } else {
        char hex[4];
        std::snprintf(hex, sizeof hex, "%%%02X",
                      static_cast<unsigned>(static_cast<unsigned char>(c)));
        out += hex;
      }
    }
    return out;
  };
  return "nbd+unix:///" + encode(export_name, "-._~") + "?socket=" + encode(socket_path, "-._~/");
}

Server::Server(const Places& places, std::string url, std::stop_token stop)
    : url_(std::move(url)),
      stop_(std::move(stop)),
      plugin_(places.plugin),
      sockets_directory_(places.sockets_directory) {
  const std::string id = id_of(places.state_directory, url_);
  folder_ = places.state_directory + "/servers/" + id;
  nbd_socket_ = places.sockets_directory + "/" + id + ".nbd";
  control_ =
      std::make_unique<ControlClient>(places.sockets_directory + "/" + id + ".control", stop_);
}

std::string Server::front_end_socket(const std::string& device) const {
  return sockets_directory_ + "/" + id_of(folder_, device) + ".fuse";
}

bool Server::ensure_running() {
  if (alive()) return false;
  process_.reset();
  make_directories(folder_, 0700);
  process_ = ServiceProcess::find(folder_ + "/lock");
  if (process_) {
    try {
      const Json hello = request({{"op", "hello"}, {"quick", true}}, milliseconds(5000));
      if (canonical_url(text_of(hello, "url")) == url_) return false;
      log_line("server " + std::to_string(pid()) + " serves " + text_of(hello, "url") +
               " and not " + url_ + ": ending it");
    } catch (const Error& error) {
      log_line("server " + std::to_string(pid()) + " of " + url_ +
               " does not answer, ending it: " + error.what());
    }
    if (!process_->stop(milliseconds(2000))) {
      throw Unavailable("server " + std::to_string(pid()) + " of " + url_ + " cannot be ended");
    }
    process_.reset();
  }
  start();
  return true;
}

void Server::start() {
  const std::string log = folder_ + "/log";
  struct stat found = {};
  if (::stat(log.c_str(), &found) == 0 && found.st_size > kMaxLog) {
    ::rename(log.c_str(), (log + ".old").c_str());
  }
  ::unlink(nbd_socket_.c_str());
  ::unlink(control_->socket_path().c_str());
  const std::vector<std::string> command = {"nbdkit",
                                            "--foreground",
                                            "--unix",
                                            nbd_socket_,
                                            plugin_,
                                            url_,
                                            "control=" + control_->socket_path()};
  process_ = ServiceProcess::start(folder_ + "/lock", command, log);
  const auto deadline = Clock::now() + kStartDeadline;
  while (true) {
    try {
      request({{"op", "hello"}, {"quick", true}}, milliseconds(5000));
      break;
    } catch (const Unavailable&) {
    }
    if (process_->wait_end(milliseconds(5))) {
      process_.reset();
      throw HintedError(ErrorCode::kUnavailable,
                        "the server of " + url_ + " ended: " + without_prefix(last_line_of(log)),
                        "its log is " + log);
    }
    if (Clock::now() > deadline) {
      stop();
      throw Unavailable("the server of " + url_ + " did not start in time; its log is " + log);
    }
  }
  log_line("server " + std::to_string(pid()) + " serves " + url_);
}

void Server::end_if_stuck(milliseconds patience) const {
  const auto begin = Clock::now();
  try {
    request({{"op", "hello"}, {"quick", true}}, patience);
    return;
  } catch (const Unavailable&) {
    // One that is dead, or is being started, refuses at once.
    if (Clock::now() - begin < patience) return;
  }
  if (const auto process = ServiceProcess::find(folder_ + "/lock")) {
    log_line("server " + std::to_string(process->pid()) + " of " + url_ +
             " does not answer, ending it");
    process->kill();
    process->wait_end(milliseconds(2000));
  }
}

void Server::stop() {
  if (process_) process_->stop(milliseconds(5000));
  process_.reset();
  ::unlink(nbd_socket_.c_str());
  ::unlink(control_->socket_path().c_str());
  remove_tree(folder_);
}

Json Server::request(const Json& request, milliseconds timeout) const {
  return control_->request(request, timeout);
}

Json Server::request(const Json& request, Fd& passed) const {
  return control_->request(request, kDeadline, -1, &passed);
}

Tid Server::last_tid(milliseconds timeout) const {
  return tid_of(request({{"op", "hello"}}, timeout), "last_tid");
}

std::map<std::string, ServedDevice> Server::status(milliseconds timeout) const {
  const Json reply = request({{"op", "status"}}, timeout);
  std::map<std::string, ServedDevice> devices;
  if (!reply.contains("devices") || !reply["devices"].is_array()) {
    throw Failed("the server's status lists no devices");
  }
  for (const Json& item : reply["devices"]) {
    if (!item.is_object()) continue;
    ServedDevice device;
    device.device = text_of(item, "device");
    device.export_name = text_of(item, "export");
    device.at = tid_of(item, "at");
    device.size = number_of(item, "size");
    device.volume_size = number_of(item, "volume_size");
    device.dirty_bytes = number_of(item, "dirty_bytes");
    device.frozen_bytes = number_of(item, "frozen_bytes");
    device.overlay_bytes = number_of(item, "overlay_bytes");
    device.settled = item.contains("settled") && item["settled"] == true;
    device.stale = item.contains("stale") && item["stale"] == true;
    device.full = text_of(item, "full");
    device.error = text_of(item, "error");
    devices.emplace(device.device, std::move(device));
  }
  return devices;
}

}  // namespace zbig
