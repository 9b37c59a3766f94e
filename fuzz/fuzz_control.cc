// SPDX-License-Identifier: BSD-3-Clause

// Any lines as requests to the server's control socket: each has a reply, a JSON object on one line
// that says whether all is well.
//
// Input: the lines. A path of an overlay is replaced by one of the fuzzer's own.

#include <nlohmann/json.hpp>

#include "bigfile/volume.h"
#include "fuzz/place.h"
#include "nbdkit-plugin/control_ops.h"

namespace {

using namespace zbig;
using Json = nlohmann::json;

std::shared_ptr<ServedDatabase> make_database(const std::string& path) {
  create_volume(*open_storage(path, OpenMode::kCreate), "/A", {.blksize = 65536, .array = {}});
  return std::make_shared<ServedDatabase>(path, std::nullopt);
}

std::string harmless(std::string_view line, const Place& place) {
  Json json = Json::parse(line, nullptr, false);
  if (!json.is_object() || !json.contains("overlay") || !json["overlay"].is_string())
    return std::string(line);
  json["overlay"] = place / "overlay";
  return json.dump();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Place home;
  static const Place place;
  static const auto database = make_database(home / "Data.fs");
  place.clear();
  ExportTable exports(database);
  std::string_view input(reinterpret_cast<const char*>(data), size);
  while (!input.empty()) {
    const auto end = std::min(input.find('\n'), input.size());
    const auto reply = answer_control(exports, harmless(input.substr(0, end), place));
    const Json json = Json::parse(reply.line, nullptr, false);
    invariant(reply.line.find('\n') == std::string::npos && json.is_object() &&
                  json.contains("ok") && (json["ok"] == true || json.contains("error")),
              "a reply is a JSON object on a line");
    if (reply.afterwards) reply.afterwards();
    input.remove_prefix(std::min(end + 1, input.size()));
  }
  return 0;
}
