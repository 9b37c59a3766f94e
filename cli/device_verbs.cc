// SPDX-License-Identifier: BSD-3-Clause

// The verbs that ask the agent: attach, detach, status, commit, abort, refresh.
//
// They only translate: what was typed into a request of docs/api.md, its answer into a line or a
// table. All that decides anything is in the agent.

#include <array>
#include <filesystem>
#include <iostream>
#include <thread>

#include "bigfile/commit.h"
#include "bigfile/extent.h"
#include "cli/agent_client.h"
#include "cli/agent_conflict.h"
#include "cli/forms.h"
#include "cli/progress.h"
#include "cli/table.h"
#include "cli/verb.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kQuick{10000};

constexpr Option kSocket{"socket", '\0', "PATH",
                         "where the agent listens; default: $ZBIG_SOCKET, else its usual place"};
constexpr Option kJson{"json", '\0', {}, "for scripts"};

AgentClient client_of(const Arguments& arguments) { return AgentClient(arguments.get("socket")); }

std::string absolute(const std::string& path) {
  return std::filesystem::absolute(path).lexically_normal();
}

// A database is a URL or a path, a device a name, a URI or a path: paths are this process's own.
std::string url_for_agent(const std::string& url) {
  return url.find("://") == std::string::npos ? absolute(url) : url;
}
std::string device_for_agent(const std::string& device) {
  const bool path =
      device.find('/') != std::string::npos && device.find("://") == std::string::npos;
  return path ? absolute(device) : device;
}

Json devices_of(const Arguments& arguments) {
  Json devices = Json::array();
  for (const std::string& device : arguments.positional()) {
    devices.push_back(device_for_agent(device));
  }
  return devices;
}

std::string text(const Json& json, const char* key) {
  return json.contains(key) && json[key].is_string() ? json[key].get<std::string>() : "";
}
std::uint64_t number(const Json& json, const char* key) {
  return json.contains(key) && json[key].is_number_unsigned() ? json[key].get<std::uint64_t>() : 0;
}

// --- attach

constexpr std::array<Option, 12> kAttachOptions{{
    {"name", '\0', "NAME", "what the device is called; default: the last part of VOLUME"},
    {"read-only", '\0', {}, "no writes, and no lock on the database"},
    {"at", '\0', "WHEN", "the volume as it was then, read-only"},
    {"nbd", '\0', "auto|/dev/nbdN",
     "as a block device of the kernel, /dev/nbdX; needs an agent that runs as root", "auto"},
    {"fuse", '\0', "PATH",
     "as the file PATH, or in the folder PATH; the default is a file below "
     "the agent's runtime folder"},
    {"socket-only", '\0', {}, "for NBD clients only; prints the URI to use"},
    {"format", '\0', "ZBlk0|ZBlk1|auto",
     "how blocks are stored; default: $WENDELIN_CORE_ZBLK_FMT, else ZBlk0"},
    {"follow", '\0', "auto|manual",
     "whether a device without changes of its own shows what others "
     "commit; default: auto"},
    {"size", '\0', "SIZE", "of the device, if it is to be larger than the volume"},
    {"on-full", '\0', "wait|error",
     "what a write gets when the disk that keeps uncommitted writes is full: it waits for room, or "
     "fails (ENOSPC); default: wait"},
    kSocket,
    kJson,
}};

Json attach_request(const Arguments& arguments) {
  Json request = {{"url", url_for_agent(arguments[0])}, {"volume", arguments[1]}};
  if (const auto name = arguments.get("name")) request["name"] = *name;
  if (arguments.has("read-only")) request["read_only"] = true;
  if (const auto when = arguments.get("at")) {
    const auto storage = open_storage(arguments[0], OpenMode::kRead);
    request["at"] = parse_when(*when, *storage).hex();
  }
  if (const int given = arguments.has("nbd") + arguments.has("fuse") + arguments.has("socket-only");
      given > 1) {
    throw Invalid("only one of --nbd, --fuse and --socket-only can be given");
  }
  if (const auto node = arguments.get("nbd")) {
    request["front_end"] = "nbd";
    request["nbd_node"] = *node;
  }
  if (arguments.has("socket-only")) request["front_end"] = "socket";
  if (const auto path = arguments.get("fuse")) request["fuse_path"] = absolute(*path);
  if (const auto follow = arguments.get("follow")) request["follow"] = *follow;
  if (const auto on_full = arguments.get("on-full")) request["on_full"] = *on_full;
  if (const auto size = arguments.get("size")) request["size"] = parse_size(*size, "--size");
  const auto format = arguments.get("format");
  if (format && !parse_block_format(*format)) {
    throw Invalid("--format: '" + *format + "' is not ZBlk0, ZBlk1 or auto");
  }
  // The environment that counts is the user's, not that of an agent started long ago.
  switch (format ? *parse_block_format(*format) : block_format_from_environment()) {
    case BlockFormat::kZBlk1:
      request["format"] = "ZBlk1";
      break;
    case BlockFormat::kAuto:
      request["format"] = "auto";
      break;
    default:
      request["format"] = "ZBlk0";
  }
  return request;
}

int attach(const Arguments& arguments) {
  const AgentClient client = client_of(arguments);
  const Json request = attach_request(arguments);
  client.start_if_needed();
  const Json device = client.request("POST", "/v1/devices", request);
  if (const std::uint64_t dirty = number(device, "dirty_bytes"); dirty > 0) {
    std::cerr << "device " << text(device, "name") << " has " << dirty
              << " uncommitted bytes from before; `zbig commit` or `zbig abort`\n";
  }
  std::cout << (arguments.has("json") ? dump(device) : text(device, "node")) << "\n";
  return 0;
}

// --- detach

constexpr std::array<Option, 4> kDetachOptions{{
    {"discard", '\0', {}, "give up what is not committed"},
    {"force",
     '\0',
     {},
     "even while programs use it; what is not committed is kept for the next "
     "attach"},
    kSocket,
    kJson,
}};

int detach(const Arguments& arguments) {
  std::string target = "/v1/devices/" + percent_encoded(device_for_agent(arguments[0])) + "?";
  if (arguments.has("discard")) target += "discard&";
  if (arguments.has("force")) target += "force&";
  target.pop_back();
  const Json answer = client_of(arguments).request("DELETE", target);
  if (arguments.has("json")) {
    std::cout << dump(answer) << "\n";
  } else if (number(answer, "discarded_bytes") > 0) {
    std::cout << "gave up " << number(answer, "discarded_bytes") << " uncommitted bytes\n";
  } else if (number(answer, "kept_bytes") > 0) {
    std::cout << "kept " << number(answer, "kept_bytes")
              << " uncommitted bytes for the next attach\n";
  }
  return 0;
}

// --- status

constexpr std::array<Option, 2> kStatusOptions{{kSocket, kJson}};

void print_device(const Json& device) {
  const auto line = [](const char* title, const std::string& value) {
    if (!value.empty()) std::cout << title << one_line(value) << "\n";
  };
  line("name         ", text(device, "name"));
  line("node         ", text(device, "node"));
  line("link         ", text(device, "link"));
  line("database     ", text(device, "url"));
  line("volume       ", text(device, "volume"));
  const std::uint64_t size = number(device, "size");
  const std::uint64_t of_volume = device.value("volume_size", size);
  const bool as_large = of_volume <= size && size - of_volume < kPageSize;
  line("size         ",
       human_size(size) + (as_large ? "" : "; the volume has " + human_size(of_volume)));
  line("view         ", text(device, "tid"));
  line("state        ",
       text(device, "state") + (device.value("read_only", false) ? ", read-only" : ""));
  line("dirty        ", human_size(number(device, "dirty_bytes")));
  line("overlay      ", human_size(number(device, "overlay_bytes")));
  line("feed         ", text(device, "feed"));
  line("format       ", text(device, "format"));
  line("nbd          ", text(device, "nbd"));
  if (device.contains("last_commit") && device["last_commit"].is_object()) {
    const Json& last = device["last_commit"];
    const std::string tid = text(last, "tid");
    line("last commit  ",
         text(last, "time") + "  " + text(last, "result") + (tid.empty() ? "" : "  " + tid));
  }
  line("waits for    ", text(device, "waits_for"));
}

int status(const Arguments& arguments) {
  const AgentClient client = client_of(arguments);
  const bool one = !arguments.positional().empty();
  Json list = Json::array();
  if (one) {
    const std::string device = percent_encoded(device_for_agent(arguments[0]));
    list.push_back(client.request("GET", "/v1/devices/" + device, nullptr, kQuick));
  } else {
    list = client.request("GET", "/v1/devices", nullptr, kQuick);
  }
  if (arguments.has("json")) {
    std::cout << dump(list) << "\n";
    return 0;
  }
  if (one) {
    print_device(list[0]);
    return 0;
  }
  Table table({{"NAME"}, {"STATE"}, {"DIRTY", true}, {"VIEW"}, {"VOLUME"}, {"NODE"}, {"DATABASE"}});
  for (const Json& device : list) {
    table.row({text(device, "name"), text(device, "state"),
               human_size(number(device, "dirty_bytes")), text(device, "tid"),
               text(device, "volume"), text(device, "node"), text(device, "url")});
  }
  table.print(std::cout);
  for (const Json& device : list) {
    const std::string reason = text(device, "waits_for");
    if (!reason.empty()) {
      std::cout << text(device, "name") << " waits for: " << one_line(reason) << "\n";
    }
  }
  return 0;
}

// --- commit

constexpr std::array<Option, 6> kCommitOptions{{
    {"message", 'm', "TEXT", "the description of the transaction"},
    {"user", '\0', "NAME", "who makes it"},
    {"merge",
     '\0',
     {},
     "where others changed the same block, take their changes of pages that were not "
     "changed here"},
    {"freeze", '\0', "none|fs|cgroup=PATH",
     "what to stop while the writes are taken: nothing (the default), the file systems "
     "mounted from the devices, or the programs of a cgroup"},
    kSocket,
    kJson,
}};

// Asks the agent how far it is, while another request waits for the end.
void show_progress(const AgentClient& client, const std::string& device, std::stop_token stop) {
  Progress progress("commit");
  while (!stop.stop_requested()) {
    std::this_thread::sleep_for(milliseconds(100));
    try {
      const Json status =
          client.request("GET", "/v1/devices/" + percent_encoded(device), nullptr, kQuick);
      if (status.contains("progress")) {
        progress.update(number(status["progress"], "done"), number(status["progress"], "total"));
      }
    } catch (const std::exception&) {
      return;  // the request that waits tells what is wrong
    }
  }
}

void print_conflict(const AgentConflict& conflict, bool json) {
  if (json) {
    std::cout << dump({{"conflict", conflict.blocks}}) << "\n";
    return;
  }
  Table table({{"VOLUME"},
               {"BLOCK", true},
               {"OFFSET", true},
               {"BASE"},
               {"COMMITTED"},
               {"USER"},
               {"DESCRIPTION"}});
  for (const Json& block : conflict.blocks) {
    table.row({text(block, "volume"), std::to_string(number(block, "block")),
               std::to_string(number(block, "offset")), text(block, "base_tid"), text(block, "tid"),
               text(block, "user"), text(block, "description")});
  }
  table.print(std::cout);
  for (const Json& block : conflict.blocks) {
    if (!block.contains("pages")) continue;
    std::cout << "changed by both in block " << number(block, "block") << ":";
    for (const Json& extent : block["pages"]) {
      std::cout << " " << number(extent, "offset") << "+" << number(extent, "length");
    }
    std::cout << "\n";
  }
}

int commit(const Arguments& arguments) {
  const AgentClient client = client_of(arguments);
  Json request = {{"devices", devices_of(arguments)}};
  if (const auto message = arguments.get("message")) request["message"] = *message;
  if (const auto user = arguments.get("user")) request["user"] = *user;
  if (arguments.has("merge")) request["merge"] = true;
  if (const auto freeze = arguments.get("freeze")) request["freeze"] = *freeze;
  Json answer;
  try {
    std::jthread bar;
    if (::isatty(STDERR_FILENO) != 0) {
      bar = std::jthread([&, device = device_for_agent(arguments[0])](std::stop_token stop) {
        show_progress(client, device, stop);
      });
    }
    answer = client.request("POST", "/v1/commit", request);
  } catch (const AgentConflict& conflict) {
    print_conflict(conflict, arguments.has("json"));
    throw;
  }
  const std::string warning = text(answer, "warning");
  if (!warning.empty()) std::cerr << "zbig: commit: " << one_line(warning) << "\n";
  if (arguments.has("json")) {
    std::cout << dump(answer) << "\n";
  } else {
    const std::string tid = text(answer, "tid");
    std::cout << (tid.empty() ? "nothing to commit" : tid) << "\n";
  }
  return 0;
}

// --- abort, refresh

int abort(const Arguments& arguments) {
  const Json answer =
      client_of(arguments).request("POST", "/v1/abort", {{"devices", devices_of(arguments)}});
  if (arguments.has("json")) std::cout << dump(answer) << "\n";
  return 0;
}

int refresh(const Arguments& arguments) {
  const Json answer =
      client_of(arguments).request("POST", "/v1/refresh", {{"devices", devices_of(arguments)}});
  if (arguments.has("json")) {
    std::cout << dump(answer) << "\n";
  } else {
    for (const Json& device : answer) std::cout << text(device, "tid") << "\n";
  }
  return 0;
}

}  // namespace

std::span<const Verb> device_verbs() {
  static const std::array<Verb, 6> verbs{{
      {"attach", "URL VOLUME", "makes a volume a device, and prints its node", kAttachOptions,
       attach},
      {"detach", "DEVICE", "takes a device away; refuses while anything of it is not committed",
       kDetachOptions, detach},
      {"status", "[DEVICE]", "tells what is attached, and how it is", kStatusOptions, status},
      {"commit", "DEVICE...",
       "makes what was written to the devices one transaction; prints its tid", kCommitOptions,
       commit},
      {"abort", "DEVICE...", "gives up what is not committed, and shows the database again",
       kStatusOptions, abort},
      {"refresh", "DEVICE...", "moves the view to the newest transaction, and prints its tid",
       kStatusOptions, refresh},
  }};
  return verbs;
}

}  // namespace zbig
