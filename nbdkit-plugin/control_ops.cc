// SPDX-License-Identifier: BSD-3-Clause
#include "nbdkit-plugin/control_ops.h"

#include <algorithm>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "zodb/error.h"
#include "zodb/error_word.h"

namespace zbig {
namespace {

using Json = nlohmann::json;

// So many extents fit into a line; a longer list is told as "whole".
constexpr std::size_t kMaxExtents = 16384;
// No name or path is longer.
constexpr std::size_t kMaxText = 4096;

// One request, with access to its members that checks them.
class Request {
 public:
  explicit Request(std::string_view line) : json_(Json::parse(line, nullptr, false)) {
    if (!json_.is_object()) throw Invalid("a request is a JSON object on one line");
  }

  std::string text(const char* key) const {
    const Json& value = member(key);
    if (!value.is_string()) throw Invalid(std::string("'") + key + "' must be a string");
    auto text = value.get<std::string>();
    if (text.empty() || text.size() > kMaxText || text.find('\0') != std::string::npos) {
      throw Invalid(std::string("'") + key + "' must have 1 to 4096 bytes, none of them zero");
    }
    return text;
  }
  bool has(const char* key) const { return json_.contains(key); }
  bool flag(const char* key) const {
    if (!has(key)) return false;
    const Json& value = member(key);
    if (!value.is_boolean()) throw Invalid(std::string("'") + key + "' must be true or false");
    return value.get<bool>();
  }
  std::uint64_t bytes(const char* key) const {
    if (!has(key)) return 0;
    const Json& value = member(key);
    constexpr std::uint64_t kMost = std::uint64_t{1} << 62;
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > kMost) {
      throw Invalid(std::string("'") + key + "' must be a number of bytes");
    }
    return value.get<std::uint64_t>();
  }
  // Nothing for "head".
  std::optional<Tid> tid_or_head(const char* key) const {
    if (!has(key)) return std::nullopt;
    const std::string text = this->text(key);
    if (text == "head") return std::nullopt;
    const std::optional<Tid> tid = Tid::parse_hex(text);
    if (!tid) throw Invalid(std::string("'") + key + "' must be 16 hex digits or \"head\"");
    return tid;
  }
  Tid tid(const char* key) const {
    member(key);
    const std::optional<Tid> tid = tid_or_head(key);
    if (!tid) throw Invalid(std::string("'") + key + "' must be 16 hex digits");
    return *tid;
  }

 private:
  const Json& member(const char* key) const {
    const auto found = json_.find(key);
    if (found == json_.end()) throw Invalid(std::string("'") + key + "' is missing");
    return *found;
  }

  Json json_;
};

struct Answer {
  Json json = Json::object();
  std::shared_ptr<const File> file;
  std::function<void()> afterwards;
};

Json list_of(std::span<const Extent> extents) {
  Json list = Json::array();
  for (const Extent& extent : extents) {
    list.push_back(Json::array({extent.offset, extent.length}));
  }
  return list;
}

// Texts for people and udev rules.
Json facts_of(const Volume& volume) {
  Json facts = {{"oid", volume.oid.hex()}};
  if (volume.array) {
    facts["dtype"] = volume.array->dtype;
    std::string shape;
    for (const std::uint64_t length : volume.array->shape) {
      shape += (shape.empty() ? "" : ",") + std::to_string(length);
    }
    facts["shape"] = shape;
  }
  return facts;
}

// What a move of the view can change.
void add_size(Json& json, const Device& device) {
  const std::shared_ptr<const View> view = device.view();
  json["size"] = device.size();
  json["volume_size"] = view->size();
  json["facts"] = facts_of(view->volume());
}

Answer moved_answer(const Device& device, const Moved& moved) {
  Answer answer;
  add_size(answer.json, device);
  answer.json["at"] = moved.at.hex();
  answer.json["settled"] = device.status().settled;
  if (!moved.extents || moved.extents->size() > kMaxExtents) {
    answer.json["whole"] = true;
    return answer;
  }
  answer.json["extents"] = list_of(*moved.extents);
  return answer;
}

// As many of the extents as fit into a line, and where to ask for more.
void add_frozen_extents(Json& json, const ExtentList& extents) {
  json["extents"] = list_of(std::span(extents).first(std::min(extents.size(), kMaxExtents)));
  if (extents.size() > kMaxExtents) json["next"] = extents[kMaxExtents].offset;
}

std::function<void()> tidy_later(std::shared_ptr<Device> device) {
  return [device = std::move(device)] {
    try {
      device->tidy();
    } catch (const Error&) {
      // Files of a dropped layer stay; the next flush tries again and reports.
    }
  };
}

Answer hello(ExportTable& exports, const Request& request) {
  Answer answer;
  answer.json = {{"url", exports.database().url()}, {"pid", getpid()}, {"version", ZBIG_VERSION}};
  if (!request.flag("quick")) answer.json["last_tid"] = exports.database().head().hex();
  return answer;
}

Answer attach(ExportTable& exports, const Request& request) {
  DeviceConfig config;
  config.name = request.text("device");
  config.export_name = request.text("export");
  config.volume = request.text("volume");
  config.at = request.tid_or_head("at");
  config.size = request.bytes("size");
  config.least = request.bytes("least");
  config.read_only = request.flag("read_only");
  config.resume = request.flag("resume");
  if (request.has("on_full")) {
    const std::string on_full = request.text("on_full");
    if (on_full != "wait" && on_full != "error") throw Invalid("'on_full' must be wait or error");
    config.wait_for_room = on_full == "wait";
  }
  if (!config.read_only) {
    config.overlay = request.text("overlay");
    if (config.overlay.front() != '/') throw Invalid("'overlay' must be an absolute path");
  }
  const std::shared_ptr<Device> device = exports.attach(std::move(config));
  const Overlay::Status status = device->status();
  Answer answer;
  answer.json = {
      {"at", status.at.hex()}, {"dirty_bytes", status.dirty_bytes}, {"settled", status.settled}};
  add_size(answer.json, *device);
  return answer;
}

Answer detach(ExportTable& exports, const Request& request) {
  const bool discard = request.flag("discard");
  const bool keep = request.flag("keep");
  if (discard && keep) throw Invalid("'discard' and 'keep' exclude each other");
  const Device::Close how = discard ? Device::Close::kDiscard
                            : keep  ? Device::Close::kKeep
                                    : Device::Close::kIfClean;
  Answer answer;
  answer.json["dirty_bytes"] = exports.detach(request.text("device"), how);
  return answer;
}

Answer freeze(ExportTable& exports, const Request& request) {
  const Device::Frozen frozen = exports.device(request.text("device"))->freeze();
  Answer answer;
  answer.json = {{"dirty_bytes", total_length(frozen.extents)}, {"at", frozen.base.hex()}};
  add_frozen_extents(answer.json, frozen.extents);
  answer.file = frozen.file;
  return answer;
}

Answer frozen(ExportTable& exports, const Request& request) {
  Answer answer;
  add_frozen_extents(answer.json,
                     exports.device(request.text("device"))->frozen_extents(request.bytes("from")));
  return answer;
}

Answer unfreeze(ExportTable& exports, const Request& request) {
  const std::shared_ptr<Device> device = exports.device(request.text("device"));
  device->unfreeze();
  Answer answer;
  answer.json["dirty_bytes"] = device->status().dirty_bytes;
  answer.afterwards = tidy_later(device);
  return answer;
}

Answer committed(ExportTable& exports, const Request& request) {
  const std::shared_ptr<Device> device = exports.device(request.text("device"));
  const Moved moved = device->committed(request.tid("at"), request.flag("stored"));
  Answer answer = moved_answer(*device, moved);
  answer.json["dirty_bytes"] = device->status().dirty_bytes;
  answer.afterwards = tidy_later(device);
  return answer;
}

Answer abort(ExportTable& exports, const Request& request) {
  const std::shared_ptr<Device> device = exports.device(request.text("device"));
  const Moved moved = device->abort();
  Answer answer = moved_answer(*device, moved);
  answer.afterwards = tidy_later(device);
  return answer;
}

Answer refresh(ExportTable& exports, const Request& request) {
  const std::shared_ptr<Device> device = exports.device(request.text("device"));
  const Moved moved = device->refresh(request.tid_or_head("at"));
  return moved_answer(*device, moved);
}

Answer settled(ExportTable& exports, const Request& request) {
  const std::shared_ptr<Device> device = exports.device(request.text("device"));
  device->settled();
  Answer answer;
  answer.json["dirty_bytes"] = device->status().dirty_bytes;
  return answer;
}

Answer stale(ExportTable& exports, const Request& request) {
  exports.device(request.text("device"))->set_stale(request.flag("stale"));
  return {};
}

Json status_of(const Device& device) {
  const DeviceConfig& config = device.config();
  const Overlay::Status status = device.status();
  return {{"device", config.name},
          {"export", config.export_name},
          {"volume", config.volume},
          {"at", status.at.hex()},
          {"size", device.size()},
          {"volume_size", device.view()->size()},
          {"dirty_bytes", status.dirty_bytes},
          {"frozen_bytes", status.frozen_bytes},
          {"overlay_bytes", device.overlay_bytes_on_disk()},
          {"read_only", config.read_only},
          {"settled", status.settled},
          {"stale", device.stale()},
          {"full", status.full.empty() ? Json() : Json(status.full)},
          {"error", status.error.empty() ? Json() : Json(status.error)}};
}

Answer status(ExportTable& exports, const Request& request) {
  Answer answer;
  Json list = Json::array();
  if (request.has("device")) {
    list.push_back(status_of(*exports.device(request.text("device"))));
  } else {
    for (const std::shared_ptr<Device>& device : exports.devices()) {
      try {
        list.push_back(status_of(*device));
      } catch (const Failed&) {
        // Detached since the list was begun.
      }
    }
  }
  answer.json["devices"] = std::move(list);
  return answer;
}

Answer answer_request(ExportTable& exports, const Request& request) {
  static const std::map<std::string, Answer (*)(ExportTable&, const Request&), std::less<>> kOps{
      {"hello", hello},     {"attach", attach},     {"detach", detach},       {"freeze", freeze},
      {"frozen", frozen},   {"unfreeze", unfreeze}, {"committed", committed}, {"abort", abort},
      {"refresh", refresh}, {"settled", settled},   {"stale", stale},         {"status", status}};
  const std::string op = request.text("op");
  const auto found = kOps.find(op);
  if (found == kOps.end()) throw Invalid("no such op: " + op.substr(0, 40));
  return found->second(exports, request);
}

// Text of messages may hold bytes of a database that are no UTF-8.
std::string line_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string control_refusal(ErrorCode code, const std::string& sentence) {
  return line_of({{"ok", false}, {"code", error_word(code)}, {"error", sentence}});
}

ControlReply answer_control(ExportTable& exports, std::string_view line) {
  try {
    Answer answer = answer_request(exports, Request(line));
    answer.json["ok"] = true;
    return {line_of(answer.json), std::move(answer.file), std::move(answer.afterwards)};
  } catch (const Error& error) {
    return {control_refusal(error.code(), error.what()), {}, {}};
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    return {control_refusal(ErrorCode::kFailed, error.what()), {}, {}};
  }
}

}  // namespace zbig
