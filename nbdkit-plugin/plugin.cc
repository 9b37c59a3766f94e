// SPDX-License-Identifier: BSD-3-Clause

// The plugin: nbdkit's callbacks, in the order in which nbdkit calls them, over an ExportTable.
//
// No exception leaves a callback (it would end the server and every device with it): each is a
// noexcept function around `answered`, the one place that turns an error into a log line and an
// errno. nbdkit knows ten of them; any other would arrive as "invalid argument" (docs/errors.md).
//
// nbdkit forks between get_ready and after_fork. So the database and the control socket are opened
// before, where a person sees what is wrong with them, and the only threads start after.

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "nbdkit-plugin/control_ops.h"
#include "nbdkit-plugin/control_server.h"
#include "nbdkit-plugin/export.h"
#include "nbdkit-plugin/export_table.h"
#include "nbdkit-plugin/log_limit.h"
#include "nbdkit-plugin/served_database.h"
#include "zodb/error.h"

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>
#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

extern "C" {
NBDKIT_DLL_PUBLIC int zbig_debug_io = 0;  // -D zbig.io=1: every request
NBDKIT_DLL_PUBLIC int zbig_debug_control =
    0;  // -D zbig.control=1: every line of the control socket
}

namespace zbig {
namespace {

struct Configuration {
  std::string url;
  std::string control;
  std::optional<Tid> at;
};

// One server a process, as nbdkit has it.
Configuration configuration;
std::unique_ptr<ExportTable> exports;
std::unique_ptr<ControlServer> control;

using Connection = std::shared_ptr<Export>;

Export& export_of(void* handle) { return **static_cast<Connection*>(handle); }

int errno_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalid:
    case ErrorCode::kUnsupported:
      return EINVAL;
    case ErrorCode::kReadOnly:
      return EROFS;
    case ErrorCode::kNoSpace:
      return ENOSPC;
    default:
      return EIO;
  }
}

LogLimit log_limit;

void log_failure(const char* callback, const char* what) {
  const auto skipped = log_limit.admit(LogLimit::Clock::now());
  if (!skipped) return;
  if (*skipped > 0) nbdkit_error("%" PRIu64 " failures before this one were not logged", *skipped);
  nbdkit_error("%s: %s", callback, what);
}

// Runs `action`; on an exception logs it, sets nbdkit's errno and returns `failed`.
template <class Result, class Action>
Result answered(const char* callback, Result failed, const Action& action) noexcept {
  try {
    return action();
  } catch (const Error& error) {
    log_failure(callback, error.what());
    nbdkit_set_error(errno_of(error.code()));
  } catch (const std::bad_alloc&) {
    log_failure(callback, "out of memory");
    nbdkit_set_error(ENOMEM);
  } catch (const std::exception& error) {
    log_failure(callback, error.what());
    nbdkit_set_error(EIO);
  } catch (...) {
    log_failure(callback, "unknown exception");
    nbdkit_set_error(EIO);
  }
  return failed;
}

// --- configuration

// nbdkit changes its directory to / when it becomes a daemon.
std::string absolute(const char* path) {
  const std::unique_ptr<char, decltype(&std::free)> result(nbdkit_absolute_path(path), &std::free);
  if (!result) throw std::bad_alloc();
  return result.get();
}

int zbig_config(const char* key, const char* value) noexcept {
  return answered("config", -1, [&] {
    const std::string name = key;
    if (name == "url") {
      if (!configuration.url.empty()) throw Invalid("url= is given twice");
      if (*value == '\0') throw Invalid("url= is empty");
      const bool is_url = std::string_view(value).find("://") != std::string_view::npos;
      configuration.url = is_url ? value : absolute(value);
    } else if (name == "control") {
      configuration.control = absolute(value);
    } else if (name == "at") {
      configuration.at = Tid::parse_hex(value);
      if (!configuration.at) throw Invalid("at=" + std::string(value) + ": not 16 hex digits");
    } else {
      throw Invalid("no parameter is called '" + name + "'");
    }
    return 0;
  });
}

int zbig_config_complete() noexcept {
  return answered("config", -1, [] {
    if (configuration.url.empty()) throw Invalid("url=URL is missing: which database?");
    return 0;
  });
}

constexpr const char* kConfigHelp =
    "[url=]URL        (required) The database: file:///srv/Data.fs, or a path, or "
    "zeo://HOST:PORT.\n"
    "at=TID           Show the state after this transaction, read-only.\n"
    "control=SOCKET   Listen here for the agent (docs/control-protocol.md).";

void zbig_dump_plugin() noexcept { std::printf("zbig_backends=filestorage,zeo\n"); }

// --- start and stop

int zbig_get_ready() noexcept {
  return answered("get_ready", -1, [] {
    exports = std::make_unique<ExportTable>(
        std::make_shared<ServedDatabase>(configuration.url, configuration.at));
    if (!configuration.control.empty()) {
      control = std::make_unique<ControlServer>(configuration.control);
    }
    return 0;
  });
}

int zbig_after_fork() noexcept {
  return answered("after_fork", -1, [] {
    exports->database().check_pinned();
    if (!control) return 0;
    control->start(
        [](std::string_view line) {
          ControlReply reply = answer_control(*exports, line);
          if (zbig_debug_control != 0) {
            nbdkit_debug("control: %.*s -> %s",
                         static_cast<int>(std::min<std::size_t>(line.size(), 500)), line.data(),
                         reply.line.substr(0, 500).c_str());
          }
          return ControlServer::Reply{std::move(reply.line), std::move(reply.file),
                                      std::move(reply.afterwards)};
        },
        [](const std::string& sentence) { return control_refusal(ErrorCode::kInvalid, sentence); });
    return 0;
  });
}

void zbig_cleanup() noexcept {
  answered("cleanup", 0, [] {
    control.reset();
    // The overlays' destructors flush; what is dirty stays for the next server.
    exports.reset();
    return 0;
  });
}

// --- exports

int zbig_list_exports(int, int, struct nbdkit_exports* list) noexcept {
  return answered("list_exports", -1, [&] {
    const auto on_error = [](const std::string& sentence) {
      nbdkit_error("list_exports: left out: %s", sentence.c_str());
    };
    for (const ExportTable::Listed& listed : exports->list(on_error)) {
      if (nbdkit_add_export(list, listed.name.c_str(), listed.description.c_str()) != 0) return -1;
    }
    return 0;
  });
}

const char* zbig_default_export(int, int) noexcept {
  return answered<const char*>("default_export", nullptr, [] {
    const std::optional<std::string> name = exports->default_export();
    if (!name) {
      throw NotFound("there is no single volume in " + exports->database().url() +
                     ": name an export");
    }
    return nbdkit_strdup_intern(name->c_str());
  });
}

void* zbig_open(int) noexcept {
  return answered<void*>("open", nullptr, [] {
    const char* name = nbdkit_export_name();
    if (name == nullptr) throw Failed("nbdkit gives no export name");
    const std::int64_t pid = nbdkit_peer_pid();
    return std::make_unique<Connection>(
               exports->connect(name, pid > 0 ? std::optional(pid) : std::nullopt))
        .release();
  });
}

void zbig_close(void* handle) noexcept {
  const std::unique_ptr<Connection> connection(static_cast<Connection*>(handle));
}

const char* zbig_export_description(void* handle) noexcept {
  return answered<const char*>("export_description", nullptr, [&] {
    return nbdkit_strdup_intern(export_of(handle).description().c_str());
  });
}

std::int64_t zbig_get_size(void* handle) noexcept {
  return answered<std::int64_t>(
      "get_size", -1, [&] { return static_cast<std::int64_t>(export_of(handle).size()); });
}

// Writes of parts of pages are served too, and the minimum says so: libnbd refuses smaller requests
// than it on the client's side, and front ends send what a program passes to write(2).
// The preferred size is no whole block: clients take it for the size of their requests, and what a
// thread has read from the page cache should still be in the processor's when it goes to the socket
// (requests of 2 MiB cost a third more processor time).
int zbig_block_size(void*, std::uint32_t* minimum, std::uint32_t* preferred,
                    std::uint32_t* maximum) noexcept {
  *minimum = 1;
  *preferred = 256u << 10;
  *maximum = 32u << 20;
  return 0;
}

int if_writable(void* handle, int value) noexcept {
  return export_of(handle).read_only() ? 0 : value;
}
int zbig_can_write(void* handle) noexcept { return if_writable(handle, 1); }
int zbig_can_trim(void* handle) noexcept { return if_writable(handle, 1); }
int zbig_can_zero(void* handle) noexcept { return if_writable(handle, 1); }
int zbig_can_fast_zero(void* handle) noexcept { return if_writable(handle, 1); }
int zbig_can_fua(void* handle) noexcept { return if_writable(handle, NBDKIT_FUA_NATIVE); }
int zbig_can_flush(void*) noexcept { return 1; }
int zbig_can_extents(void*) noexcept { return 1; }
int zbig_can_cache(void*) noexcept { return NBDKIT_CACHE_NATIVE; }
int zbig_is_rotational(void*) noexcept { return 0; }
int zbig_can_multi_conn(void* handle) noexcept {
  return export_of(handle).same_on_every_connection() ? 1 : 0;
}

// --- requests

// Logs with -D zbig.io=1, and runs the request.
template <class Action>
int request(const char* what, std::uint64_t offset, std::uint64_t count,
            const Action& action) noexcept {
  return answered(what, -1, [&] {
    if (zbig_debug_io != 0) {
      nbdkit_debug("%s %llu bytes at %llu", what, static_cast<unsigned long long>(count),
                   static_cast<unsigned long long>(offset));
    }
    action();
    return 0;
  });
}

int zbig_pread(void* handle, void* buffer, std::uint32_t count, std::uint64_t offset,
               std::uint32_t) noexcept {
  return request("pread", offset, count, [&] {
    export_of(handle).read(offset, std::span(static_cast<std::byte*>(buffer), count));
  });
}

int zbig_pwrite(void* handle, const void* buffer, std::uint32_t count, std::uint64_t offset,
                std::uint32_t flags) noexcept {
  return request("pwrite", offset, count, [&] {
    Export& target = export_of(handle);
    target.write(offset, ByteView(static_cast<const std::byte*>(buffer), count));
    if ((flags & NBDKIT_FLAG_FUA) != 0) target.flush();
  });
}

// A hole with its bit set: as good for "zero", which may keep the space, as for "trim".
int zbig_zero(void* handle, std::uint32_t count, std::uint64_t offset,
              std::uint32_t flags) noexcept {
  return request("zero", offset, count, [&] {
    Export& target = export_of(handle);
    target.zero(offset, count);
    if ((flags & NBDKIT_FLAG_FUA) != 0) target.flush();
  });
}

int zbig_flush(void* handle, std::uint32_t) noexcept {
  return request("flush", 0, 0, [&] { export_of(handle).flush(); });
}

int zbig_cache(void* handle, std::uint32_t count, std::uint64_t offset, std::uint32_t) noexcept {
  return request("cache", offset, count, [&] { export_of(handle).prefetch(offset, count); });
}

int zbig_extents(void* handle, std::uint32_t count, std::uint64_t offset, std::uint32_t,
                 struct nbdkit_extents* list) noexcept {
  return answered("extents", -1, [&] {
    constexpr std::uint32_t kHole = NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO;
    std::uint64_t at = offset;
    const auto add = [&](std::uint64_t end, std::uint32_t type) {
      const std::uint64_t from = std::exchange(at, end);
      return end == from || nbdkit_add_extent(list, from, end - from, type) == 0;
    };
    for (const Extent& extent : export_of(handle).data_extents(offset, count)) {
      if (!add(extent.offset, kHole) || !add(extent.end(), 0)) return -1;
    }
    return add(offset + count, kHole) ? 0 : -1;
  });
}

nbdkit_plugin make_plugin() {
  nbdkit_plugin plugin{};
  plugin.name = "zbig";
  plugin.longname = "ZODB big files";
  plugin.version = ZBIG_VERSION;
  plugin.description = "Serves the ZBigFiles of a ZODB database as block devices.";
  plugin.magic_config_key = "url";
  plugin.config = zbig_config;
  plugin.config_complete = zbig_config_complete;
  plugin.config_help = kConfigHelp;
  plugin.dump_plugin = zbig_dump_plugin;
  plugin.get_ready = zbig_get_ready;
  plugin.after_fork = zbig_after_fork;
  plugin.cleanup = zbig_cleanup;
  plugin.list_exports = zbig_list_exports;
  plugin.default_export = zbig_default_export;
  plugin.open = zbig_open;
  plugin.close = zbig_close;
  plugin.export_description = zbig_export_description;
  plugin.get_size = zbig_get_size;
  plugin.block_size = zbig_block_size;
  plugin.can_write = zbig_can_write;
  plugin.can_trim = zbig_can_trim;
  plugin.can_zero = zbig_can_zero;
  plugin.can_fast_zero = zbig_can_fast_zero;
  plugin.can_fua = zbig_can_fua;
  plugin.can_flush = zbig_can_flush;
  plugin.can_extents = zbig_can_extents;
  plugin.can_cache = zbig_can_cache;
  plugin.can_multi_conn = zbig_can_multi_conn;
  plugin.is_rotational = zbig_is_rotational;
  plugin.pread = zbig_pread;
  plugin.pwrite = zbig_pwrite;
  plugin.zero = zbig_zero;
  plugin.trim = zbig_zero;
  plugin.flush = zbig_flush;
  plugin.cache = zbig_cache;
  plugin.extents = zbig_extents;
  plugin.errno_is_preserved = 0;
  return plugin;
}

nbdkit_plugin plugin = make_plugin();

}  // namespace

NBDKIT_REGISTER_PLUGIN(plugin)

}  // namespace zbig
