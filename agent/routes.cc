// SPDX-License-Identifier: BSD-3-Clause
#include "agent/routes.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <map>
#include <set>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "agent/hinted_error.h"
#include "agent/kernel_nbd/node.h"
#include "agent/upload_file.h"
#include "bigfile/commit.h"
#include "zodb/error_word.h"

namespace zbig {
namespace {

// What a transaction can hold of a text.
constexpr std::size_t kMaxText = 65535;

// --- what comes in

// The fields of a JSON object. Each is asked for with its type; one that is there and was not asked
// for is refused, so that a misspelt option is an error and not ignored.
class Fields {
 public:
  explicit Fields(const std::string& body) : json_(Json::parse(body, nullptr, false)) {
    if (!json_.is_object()) {
      throw HintedError(ErrorCode::kInvalid, "the request's body is no JSON object",
                        "docs/api.md shows what each request looks like");
    }
  }

  std::optional<std::string> text(const char* key) {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) throw Invalid(std::string(key) + ": a string is wanted");
    const auto& text = value->get_ref<const std::string&>();
    if (text.find('\0') != std::string::npos) throw Invalid(std::string(key) + ": has a NUL in it");
    return text;
  }
  std::string needed_text(const char* key) {
    auto value = text(key);
    if (!value || value->empty()) throw Invalid(std::string(key) + " is missing");
    return *value;
  }
  bool flag(const char* key) {
    const Json* value = find(key);
    if (value == nullptr) return false;
    if (!value->is_boolean()) throw Invalid(std::string(key) + ": true or false is wanted");
    return value->get<bool>();
  }
  std::uint64_t number(const char* key) {
    const Json* value = find(key);
    if (value == nullptr) return 0;
    if (!value->is_number_unsigned()) {
      throw Invalid(std::string(key) + ": a whole number, not negative, is wanted");
    }
    return value->get<std::uint64_t>();
  }
  std::vector<std::string> texts(const char* key) {
    const Json* value = find(key);
    if (value == nullptr || !value->is_array() || value->empty()) {
      throw Invalid(std::string(key) + ": a list of names is wanted");
    }
    std::vector<std::string> result;
    for (const Json& item : *value) {
      if (!item.is_string()) throw Invalid(std::string(key) + ": a list of names is wanted");
      result.push_back(item.get<std::string>());
    }
    return result;
  }
  void refuse_others() const {
    for (const auto& [key, value] : json_.items()) {
      if (!asked_.contains(key)) throw Invalid("unknown field " + Json(key).dump());
    }
  }

 private:
  const Json* find(const char* key) {
    asked_.insert(key);
    const auto at = json_.find(key);
    return at == json_.end() || at->is_null() ? nullptr : &*at;
  }

  Json json_;
  std::set<std::string> asked_;
};

std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned value = 0;
    if (text[i] != '%') {
      out += text[i];
    } else if (i + 2 < text.size() &&
               std::from_chars(&text[i + 1], &text[i + 1] + 2, value, 16).ptr == &text[i + 1] + 2) {
      out += static_cast<char>(value);
      i += 2;
    } else {
      throw Invalid("a bad % in the path of the request");
    }
  }
  return out;
}

// The query of DELETE: flags, "discard&force" or "discard=true".
std::set<std::string> query_flags(std::string_view query,
                                  std::initializer_list<const char*> known) {
  std::set<std::string> flags;
  while (!query.empty()) {
    std::string_view part = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), part.size() + 1));
    const std::size_t equals = part.find('=');
    const std::string key(part.substr(0, equals));
    const std::string value(equals == part.npos ? "true" : part.substr(equals + 1));
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      throw Invalid("unknown parameter '" + key + "'");
    }
    if (value != "true" && value != "false") throw Invalid(key + ": true or false is wanted");
    if (value == "true") flags.insert(key);
  }
  return flags;
}

// The query of an import: "url=...&volume=...", percent-encoded. One that is not known is refused.
std::map<std::string, std::string> query_values(std::string_view query,
                                                std::initializer_list<const char*> known) {
  std::map<std::string, std::string> values;
  while (!query.empty()) {
    const std::string_view part = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), part.size() + 1));
    const std::size_t equals = part.find('=');
    const std::string key(part.substr(0, equals));
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      throw Invalid("unknown parameter '" + key + "'");
    }
    std::string value;
    if (equals != part.npos) value = percent_decoded(part.substr(equals + 1));
    if (value.find('\0') != std::string::npos) throw Invalid(key + ": has a NUL in it");
    values[key] = std::move(value);
  }
  return values;
}

void check_texts(const TransactionMeta& meta) {
  for (const std::string* text : {&meta.description, &meta.user}) {
    if (text->size() > kMaxText) {
      throw Invalid("message and user are at most 65535 bytes each, not " +
                    std::to_string(text->size()));
    }
  }
}

// --- what goes out

std::string dump(const Json& json) {
  // Names and texts of a database need not be UTF-8.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json to_json(const DeviceStatus& status) {
  const DeviceRecord& record = status.record;
  Json json = {{"name", record.name},
               {"node", status.node},
               {"url", record.url},
               {"volume", record.volume},
               {"tid", status.at.hex()},
               {"settled", status.settled},
               {"dirty_bytes", status.dirty_bytes},
               {"overlay_bytes", status.overlay_bytes},
               {"state", status.state},
               {"size", status.size},
               {"volume_size", status.volume_size},
               {"read_only", record.read_only},
               {"front_end", front_end_word(record.front_end)},
               {"link", record.link},
               {"nbd", status.nbd},
               {"format", format_word(record.format)},
               {"follow", record.pinned   ? "pinned"
                          : record.follow ? "auto"
                                          : "manual"},
               {"on_full", record.wait_for_room ? "wait" : "error"},
               {"feed", status.feed},
               {"waits_for", status.waits_for},
               {"last_commit", nullptr}};
  if (status.last_commit) {
    const LastCommit& last = *status.last_commit;
    json["last_commit"] = {{"tid", last.tid ? Json(last.tid->hex()) : Json(nullptr)},
                           {"time", last.time},
                           {"result", last.result}};
  }
  if (status.state == "committing") {
    json["progress"] = {{"done", status.commit_done}, {"total", status.commit_total}};
  }
  return json;
}

Json to_json(const CommitOutcome& outcome) {
  Json json = {{"tid", outcome.tid ? Json(outcome.tid->hex()) : Json(nullptr)},
               {"blocks_changed", outcome.blocks_changed},
               {"blocks_merged", outcome.blocks_merged},
               {"bytes_stored", outcome.bytes_stored}};
  if (!outcome.warning.empty()) json["warning"] = outcome.warning;
  return json;
}

Json to_json(const std::vector<BlockConflict>& blocks) {
  Json list = Json::array();
  for (const BlockConflict& block : blocks) {
    Json json = {{"volume", block.volume},          {"block", block.block},
                 {"offset", block.offset},          {"base_tid", block.base_tid.hex()},
                 {"tid", block.tid.hex()},          {"user", block.user},
                 {"description", block.description}};
    for (const Extent& extent : block.pages) {
      json["pages"].push_back({{"offset", extent.offset}, {"length", extent.length}});
    }
    list.push_back(std::move(json));
  }
  return list;
}

HttpResponse error_response(ErrorCode code, const std::string& message, const std::string& hint,
                            const std::vector<BlockConflict>* blocks = nullptr) {
  Json error = {{"code", error_word(code)}, {"message", message}};
  if (!hint.empty()) error["hint"] = hint;
  if (blocks != nullptr) error["conflict"] = to_json(*blocks);
  return {http_status(code), dump({{"error", error}})};
}

// --- the requests

HttpResponse list_devices(Agent& agent) {
  Json list = Json::array();
  for (const DeviceStatus& status : agent.status()) list.push_back(to_json(status));
  return {200, dump(list)};
}

// "/dev/nbd7"; nothing for "auto".
std::optional<std::uint32_t> nbd_index_from(const std::string& node) {
  constexpr std::string_view kFolder = "/dev/";
  if (node == "auto") return std::nullopt;
  const auto index = node.starts_with(kFolder) ? nbd_index_of(node.substr(kFolder.size()))
                                               : std::optional<std::uint32_t>();
  if (!index) throw Invalid("nbd_node: auto or /dev/nbdN is wanted, not '" + node + "'");
  return index;
}

HttpResponse attach(Agent& agent, const std::string& body) {
  Fields fields(body);
  AttachRequest request;
  request.url = fields.needed_text("url");
  request.volume = fields.needed_text("volume");
  request.name = fields.text("name");
  request.read_only = fields.flag("read_only");
  if (const auto at = fields.text("at"); at && *at != "head") {
    request.at = Tid::parse_hex(*at);
    if (!request.at) throw Invalid("at: a tid of 16 hex digits, or head, is wanted");
  }
  request.fuse_path = fields.text("fuse_path");
  if (request.fuse_path && !request.fuse_path->starts_with('/')) {
    throw Invalid("fuse_path: an absolute path is wanted");
  }
  const std::string front_end = fields.text("front_end").value_or("fuse");
  const auto kind = parse_front_end(front_end);
  if (!kind) throw Invalid("front_end: fuse, nbd or socket is wanted");
  request.front_end = *kind;
  if (request.fuse_path && request.front_end != FrontEndKind::kFuse) {
    throw Invalid("fuse_path is of no use with front_end " + front_end);
  }
  if (const auto node = fields.text("nbd_node")) {
    if (request.front_end != FrontEndKind::kNbd) {
      throw Invalid("nbd_node is of no use with front_end " + front_end);
    }
    request.nbd_index = nbd_index_from(*node);
  }
  if (const auto format = fields.text("format")) {
    request.format = parse_block_format(*format);
    if (!request.format) throw Invalid("format: ZBlk0, ZBlk1 or auto is wanted");
  }
  const std::string follow = fields.text("follow").value_or("auto");
  if (follow != "auto" && follow != "manual") throw Invalid("follow: auto or manual is wanted");
  request.follow = follow == "auto";
  const std::string on_full = fields.text("on_full").value_or("wait");
  if (on_full != "wait" && on_full != "error") throw Invalid("on_full: wait or error is wanted");
  request.wait_for_room = on_full == "wait";
  request.size = fields.number("size");
  fields.refuse_others();
  return {201, dump(to_json(agent.attach(request)))};
}

HttpResponse commit(Agent& agent, const std::string& body) {
  Fields fields(body);
  const std::vector<std::string> devices = fields.texts("devices");
  CommitRequest request;
  TransactionMeta& meta = request.meta;
  meta.description = fields.text("message").value_or("");
  meta.user = fields.text("user").value_or("");
  check_texts(meta);
  request.merge = fields.flag("merge");
  request.freeze = parse_freeze(fields.text("freeze").value_or("none"));
  fields.refuse_others();
  return {200, dump(to_json(agent.commit(devices, request)))};
}

HttpResponse import(Agent& agent, std::string_view query, HttpUpload* upload) {
  auto values = query_values(query, {"url", "volume", "offset", "format", "message", "user"});
  for (const char* key : {"url", "volume"}) {
    if (values[key].empty()) throw Invalid(std::string(key) + " is missing");
  }
  ImportRequest request;
  request.volume = values["volume"];
  if (const std::string& text = values["offset"]; !text.empty()) {
    const char* end = text.data() + text.size();
    if (std::from_chars(text.data(), end, request.offset).ptr != end ||
        request.offset > std::uint64_t{1} << 62) {
      throw Invalid("offset: a number of bytes is wanted");
    }
  }
  request.format = block_format_from_environment();
  if (const std::string& text = values["format"]; !text.empty()) {
    const auto format = parse_block_format(text);
    if (!format) throw Invalid("format: ZBlk0, ZBlk1 or auto is wanted");
    request.format = *format;
  }
  request.meta.description = values["message"];
  request.meta.user = values["user"];
  check_texts(request.meta);
  if (upload == nullptr) {
    throw HintedError(ErrorCode::kInvalid, "an import's body is the bytes",
                      "send it with Content-Type: application/octet-stream");
  }
  agent.require_database(values["url"]);  // before anything is uploaded in vain
  const UploadFile uploaded(agent.places().state_directory, *upload);
  return {200, dump(to_json(agent.import(values["url"], request, uploaded.file())))};
}

HttpResponse for_each_device(Agent& agent, const std::string& body,
                             const std::function<void(const std::vector<std::string>&)>& action) {
  Fields fields(body);
  const std::vector<std::string> devices = fields.texts("devices");
  fields.refuse_others();
  action(devices);
  Json list = Json::array();
  for (const std::string& device : devices) list.push_back(to_json(agent.status(device)));
  return {200, dump(list)};
}

HttpResponse detach(Agent& agent, const std::string& device, std::string_view query) {
  const auto flags = query_flags(query, {"discard", "force"});
  const DetachOutcome outcome =
      agent.detach(device, flags.contains("discard"), flags.contains("force"));
  return {200,
          dump({{"discarded_bytes", outcome.discarded_bytes}, {"kept_bytes", outcome.kept_bytes}})};
}

HttpResponse dispatch(Agent& agent, const HttpRequest& request) {
  const std::size_t question = request.target.find('?');
  const std::string path = request.target.substr(0, question);
  const std::string_view query = question == std::string::npos
                                     ? std::string_view()
                                     : std::string_view(request.target).substr(question + 1);
  const std::string call = request.method + " " + path;
  constexpr std::string_view kDevice = "/v1/devices/";
  if (path.starts_with(kDevice) && path.size() > kDevice.size()) {
    const std::string device = percent_decoded(std::string_view(path).substr(kDevice.size()));
    if (request.method == "GET") return {200, dump(to_json(agent.status(device)))};
    if (request.method == "DELETE") return detach(agent, device, query);
  }
  if (call == "POST /v1/import") return import(agent, query, request.upload);
  if (!query.empty()) throw Invalid("parameters after '?' are of no use here");
  if (call == "GET /v1/devices") return list_devices(agent);
  if (call == "POST /v1/devices") return attach(agent, request.body);
  if (call == "POST /v1/commit") return commit(agent, request.body);
  if (call == "POST /v1/abort") {
    return for_each_device(agent, request.body, [&](const auto& devices) { agent.abort(devices); });
  }
  if (call == "POST /v1/refresh") {
    return for_each_device(agent, request.body,
                           [&](const auto& devices) { agent.refresh(devices); });
  }
  if (call == "GET /v1/agent") {
    return {200, dump({{"version", ZBIG_VERSION},
                       {"pid", ::getpid()},
                       {"state", agent.places().state_directory}})};
  }
  throw HintedError(ErrorCode::kNotFound, "there is no " + call, "docs/api.md lists all requests");
}

}  // namespace

HttpResponse answer_request(Agent& agent, const HttpRequest& request) noexcept {
  try {
    try {
      return dispatch(agent, request);
    } catch (const CommitConflict& error) {
      const bool merged =
          std::any_of(error.blocks.begin(), error.blocks.end(),
                      [](const BlockConflict& block) { return !block.pages.empty(); });
      return error_response(
          error.code(), error.what(),
          merged ? "both changed the same pages: `zbig abort` gives up this device's changes and "
                   "shows the others'"
                 : "--merge takes the others' changes of pages that were not changed here; `zbig "
                   "abort` gives up this device's changes",
          &error.blocks);
    } catch (const HintedError& error) {
      return error_response(error.code(), error.what(), error.hint);
    } catch (const Error& error) {
      return error_response(error.code(), error.what(), {});
    } catch (const std::bad_alloc&) {
      return error_response(ErrorCode::kFailed, "out of memory", {});
    } catch (const std::exception& error) {
      return error_response(ErrorCode::kFailed, error.what(), {});
    }
  } catch (...) {
    return {500, "{\"error\":{\"code\":\"failed\",\"message\":\"out of memory\"}}\n"};
  }
}

}  // namespace zbig
