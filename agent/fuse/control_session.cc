// SPDX-License-Identifier: BSD-3-Clause
#include "agent/fuse/control_session.h"

#include <algorithm>
#include <cerrno>
#include <optional>
#include <vector>

#include <nlohmann/json.hpp>
#include <sys/socket.h>

#include "agent/fuse/kernel_file.h"
#include "agent/fuse/mount_point.h"
#include "agent/fuse/turn.h"
#include "zodb/error.h"
#include "zodb/error_word.h"

namespace zbig::fuse {
namespace {

constexpr std::size_t kMaxLine = 1u << 20;
constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kMaxSize = std::uint64_t{1} << 62;

struct Extent {
  std::uint64_t begin;
  std::uint64_t end;
};

class Lines {
 public:
  explicit Lines(const Fd& socket) : socket_(socket) {}

  // Nothing at the end. Throws Invalid for a line that is too long.
  std::optional<std::string> next() {
    while (true) {
      const std::size_t end = buffer_.find('\n', searched_);
      if (end != std::string::npos) {
        std::string line = buffer_.substr(0, end);
        buffer_.erase(0, end + 1);
        searched_ = 0;
        return line;
      }
      searched_ = buffer_.size();
      if (buffer_.size() > kMaxLine) throw Invalid("a request longer than 1 MiB");
      char more[65536];
      const ssize_t size = recv(socket_.get(), more, sizeof more, 0);
      if (size < 0 && errno == EINTR) continue;
      if (size <= 0) return {};
      buffer_.append(more, static_cast<std::size_t>(size));
    }
  }

  void put(const Json& object) {
    // A path may hold bytes that are no text.
    const std::string line = object.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    std::size_t done = 0;
    while (done < line.size()) {
      const ssize_t size =
          send(socket_.get(), line.data() + done, line.size() - done, MSG_NOSIGNAL);
      if (size < 0 && errno != EINTR) return;  // gone; next() will notice
      if (size > 0) done += static_cast<std::size_t>(size);
    }
  }

 private:
  const Fd& socket_;
  std::string buffer_;
  std::size_t searched_ = 0;
};

std::uint64_t number(const Json& value, const char* what) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > kMaxSize) {
    throw Invalid(std::string(what) + " is no number of bytes");
  }
  return value.get<std::uint64_t>();
}

bool flag(const Json& request, const char* key) {
  if (!request.contains(key)) return false;
  if (!request[key].is_boolean()) throw Invalid(std::string(key) + " is neither true nor false");
  return request[key].get<bool>();
}

// Whole pages, in order; those that touch or overlap are one.
std::vector<Extent> extents_of(const Json& list) {
  if (!list.is_array()) throw Invalid("extents is no list");
  std::vector<Extent> extents;
  for (const Json& item : list) {
    if (!item.is_array() || item.size() != 2) throw Invalid("an extent is no [offset, length]");
    const std::uint64_t begin = number(item[0], "an offset");
    const std::uint64_t length = number(item[1], "a length");
    if (length == 0) continue;
    extents.push_back({begin / kPage * kPage, (begin + length + kPage - 1) / kPage * kPage});
  }
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  std::vector<Extent> merged;
  for (const Extent& extent : extents) {
    if (!merged.empty() && extent.begin <= merged.back().end) {
      merged.back().end = std::max(merged.back().end, extent.end);
    } else {
      merged.push_back(extent);
    }
  }
  return merged;
}

class Session {
 public:
  Session(Worker& worker, const Fd& client, const DeviceFacts& facts)
      : worker_(worker), client_(client), facts_(facts) {}

  Json answer(const Json& request) {
    if (!request.is_object() || !request.contains("op") || !request["op"].is_string()) {
      throw Invalid("a request is an object with an \"op\"");
    }
    const std::string op = request["op"].get<std::string>();
    if (op == "hello") return hello();
    if (op == "status") return worker_.ask({{"op", "status"}});
    if (op == "invalidate") return invalidate(request);
    if (op == "sync") return sync();
    if (op == "quit") return quit(flag(request, "force"));
    throw Unsupported("there is no request \"" + op + "\"");
  }

 private:
  Json hello() {
    const Json status = worker_.ask({{"op", "status"}});
    return {{"ok", true},
            {"program", "zbig-fuse"},
            {"version", ZBIG_VERSION},
            {"pid", facts_.pid},
            {"path", facts_.path},
            {"uri", facts_.uri},
            {"read_only", facts_.read_only},
            {"size", status.at("size")}};
  }

  Json invalidate(const Json& request) {
    const bool whole = flag(request, "whole");
    std::vector<Extent> extents;
    if (request.contains("extents")) extents = extents_of(request["extents"]);
    if (!whole && !request.contains("extents") && !request.contains("size")) {
      throw Invalid("invalidate without extents, whole or size");
    }
    const Turn turn(facts_.turns, Turn::kInvalidate, client_);
    if (request.contains("size")) {
      const std::uint64_t size = number(request["size"], "size");
      worker_.ask({{"op", "resize"}, {"size", size}});
      make_kernel_take_size(facts_.path, facts_.device, size);
    }
    if (whole) {
      worker_.cache().drop(0, 0);
    } else {
      for (const Extent& extent : extents) {
        worker_.cache().drop(extent.begin, extent.end - extent.begin);
      }
    }
    // What was written to a page before it was dropped must not arrive after the reply.
    if (!facts_.read_only) wait_for_writes(facts_.path, facts_.device);
    return {{"ok", true}};
  }

  Json sync() {
    if (facts_.read_only) return {{"ok", true}};
    const Turn turn(facts_.turns, Turn::kSync, client_);
    sync_file(facts_.path, facts_.device);
    return {{"ok", true}};
  }

  Json quit(bool force) {
    if (force) {
      worker_.ask({{"op", "leave"}});
    } else {
      const Turn turn(facts_.turns, Turn::kSync, client_);
      leave_cleanly(facts_);
    }
    return {{"ok", true}};
  }

  Worker& worker_;
  const Fd& client_;
  const DeviceFacts& facts_;
};

}  // namespace

void leave_cleanly(const DeviceFacts& facts) {
  if (!facts.read_only) sync_file(facts.path, facts.device);
  unmount(facts.path, false);
}

void serve_control_connection(Worker& worker, const Fd& client, const DeviceFacts& facts) {
  Lines lines(client);
  Session session(worker, client, facts);
  while (true) {
    worker.set_idle(true);
    std::optional<std::string> line;
    Json reply;
    try {
      line = lines.next();
      if (!line) return;
      worker.set_idle(false);
      reply = session.answer(Json::parse(*line));
    } catch (const Error& error) {
      reply = {{"ok", false}, {"code", error_word(error.code())}, {"error", error.what()}};
    } catch (const Json::exception& error) {
      reply = {{"ok", false}, {"code", "invalid"}, {"error", "the request is no JSON"}};
    } catch (const std::exception& error) {
      reply = {{"ok", false}, {"code", "failed"}, {"error", error.what()}};
    }
    lines.put(reply);
    if (!line) return;  // what follows a line that is too long cannot be made out
  }
}

}  // namespace zbig::fuse
