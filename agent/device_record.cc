// SPDX-License-Identifier: BSD-3-Clause
#include "agent/device_record.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "agent/control_client.h"
#include "agent/files.h"
#include "agent/log.h"
#include "zodb/error.h"

namespace zbig {
namespace {

constexpr int kFormatVersion = 1;
constexpr std::size_t kMaxRecord = 64u << 10;
// More commits of a device are not cut short one after the other.
constexpr std::size_t kMaxVoted = 4096;

Tid tid_from(const Json& json) {
  const auto tid = Tid::parse_hex(json.get<std::string>());
  if (!tid) throw Failed("a tid that is no 16 hex digits");
  return *tid;
}

Json tid_or_null(const std::optional<Tid>& tid) { return tid ? Json(tid->hex()) : Json(nullptr); }

bool name_character(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
         c == '_' || c == '-';
}

bool alphanumeric(char c) { return name_character(c) && c != '.' && c != '_' && c != '-'; }

}  // namespace

std::string_view format_word(BlockFormat format) {
  switch (format) {
    case BlockFormat::kKeep:
      return "keep";
    case BlockFormat::kZBlk0:
      return "ZBlk0";
    case BlockFormat::kZBlk1:
      return "ZBlk1";
    case BlockFormat::kAuto:
      return "auto";
  }
  return "ZBlk0";
}

std::string_view front_end_word(FrontEndKind kind) {
  switch (kind) {
    case FrontEndKind::kFuse:
      return "fuse";
    case FrontEndKind::kNbd:
      return "nbd";
    case FrontEndKind::kSocket:
      return "socket";
  }
  return "fuse";
}

std::optional<FrontEndKind> parse_front_end(std::string_view word) {
  for (const FrontEndKind kind : {FrontEndKind::kFuse, FrontEndKind::kNbd, FrontEndKind::kSocket}) {
    if (word == front_end_word(kind)) return kind;
  }
  return std::nullopt;
}

std::string to_text(const DeviceRecord& record) {
  Json json = {{"format_version", kFormatVersion},
               {"name", record.name},
               {"url", record.url},
               {"volume", record.volume},
               {"export", record.export_name},
               {"read_only", record.read_only},
               {"pinned", tid_or_null(record.pinned)},
               {"follow", record.follow},
               {"format", format_word(record.format)},
               {"size", record.size},
               {"least_size", record.least_size},
               {"wait_for_room", record.wait_for_room},
               {"front_end", front_end_word(record.front_end)},
               {"fuse_path", record.fuse_path},
               {"made_fuse_path", record.made_fuse_path},
               {"instance", record.instance},
               {"nbd_index", record.nbd_index ? Json(*record.nbd_index) : Json(nullptr)},
               {"nbd_index_asked", record.nbd_index_asked},
               {"facts", record.facts},
               {"link", record.link},
               {"complete", record.complete},
               {"attached", record.attached}};
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

DeviceRecord device_record_from(const std::string& text) {
  try {
    const Json json = Json::parse(text);
    if (json.at("format_version").get<int>() != kFormatVersion) {
      throw Failed("format_version " + json.at("format_version").dump() +
                   " is not for this version");
    }
    DeviceRecord record;
    record.name = json.at("name").get<std::string>();
    record.url = json.at("url").get<std::string>();
    record.volume = json.at("volume").get<std::string>();
    record.export_name = json.at("export").get<std::string>();
    record.read_only = json.at("read_only").get<bool>();
    if (!json.at("pinned").is_null()) record.pinned = tid_from(json.at("pinned"));
    record.follow = json.at("follow").get<bool>();
    const auto format = parse_block_format(json.at("format").get<std::string>());
    if (!format) throw Failed("format " + json.at("format").dump());
    record.format = *format;
    record.size = json.at("size").get<std::uint64_t>();
    record.least_size = json.value("least_size", record.least_size);
    record.wait_for_room = json.value("wait_for_room", true);
    const auto front_end = parse_front_end(json.at("front_end").get<std::string>());
    if (!front_end) throw Failed("front_end " + json.at("front_end").dump());
    record.front_end = *front_end;
    record.fuse_path = json.at("fuse_path").get<std::string>();
    record.made_fuse_path = json.at("made_fuse_path").get<bool>();
    // Not there in what earlier versions wrote.
    record.instance = json.value("instance", "");
    if (json.contains("nbd_index") && !json["nbd_index"].is_null()) {
      record.nbd_index = json["nbd_index"].get<std::uint32_t>();
    }
    record.nbd_index_asked = json.value("nbd_index_asked", false);
    record.facts = json.value("facts", record.facts);
    record.link = json.at("link").get<std::string>();
    record.complete = json.at("complete").get<bool>();
    record.attached = json.at("attached").get<bool>();
    return record;
  } catch (const Json::exception& error) {
    throw Failed(error.what());
  }
}

bool valid_device_name(const std::string& name) {
  return !name.empty() && name.size() <= 64 && alphanumeric(name[0]) && name != "frozen" &&
         name != "growing" && std::all_of(name.begin(), name.end(), name_character);
}

std::string device_name_from(const std::string& volume) {
  std::string name = volume.substr(volume.rfind('/') + 1);
  for (char& c : name) {
    if (!name_character(c)) c = '_';
  }
  if (name.empty() || !alphanumeric(name[0])) name = "v" + name;
  name.resize(std::min<std::size_t>(name.size(), 56));  // room for a number
  return valid_device_name(name) ? name : name + "-1";
}

DeviceStore::DeviceStore(const std::string& state_directory)
    : devices_(state_directory + "/devices") {
  make_directories(devices_, 0700);
}

std::string DeviceStore::directory(const std::string& name) const { return devices_ + "/" + name; }

void DeviceStore::save(const DeviceRecord& record) const {
  const std::string folder = directory(record.name);
  make_directories(folder, 0700);
  write_file_atomically(folder + "/device.json", to_text(record));
  sync_directory(devices_);
}

void DeviceStore::save_last_commit(const std::string& name, const LastCommit& last) const noexcept {
  try {
    const Json json = {
        {"tid", tid_or_null(last.tid)}, {"time", last.time}, {"result", last.result}};
    write_over_file(directory(name) + "/last_commit.json",
                    json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
  } catch (const std::exception& error) {
    log_line("device " + name + ": last_commit.json: " + error.what());
  }
}

void DeviceStore::save_voted(const std::string& name,
                             const std::vector<std::string>& marks) const noexcept {
  try {
    std::string text;
    for (const std::string& mark : marks) text += mark + "\n";
    write_over_file(directory(name) + "/voted", text);
  } catch (const std::exception& error) {
    log_line("device " + name + ": " + error.what());
  }
}

void DeviceStore::save_view(const std::string& name, Tid at) const noexcept {
  std::ofstream(directory(name) + "/view", std::ios::trunc) << at.hex() << std::endl;
}

Tid DeviceStore::view(const std::string& name) const noexcept {
  std::string line;
  std::getline(std::ifstream(directory(name) + "/view"), line);
  return Tid::parse_hex(line).value_or(Tid{});
}

std::vector<std::string> DeviceStore::voted(const std::string& name) const noexcept {
  std::vector<std::string> marks;
  std::ifstream file(directory(name) + "/voted");
  for (std::string line; marks.size() < kMaxVoted && std::getline(file, line);) {
    // What was longer was written over with spaces.
    if (line.find_first_not_of(' ') != std::string::npos) marks.push_back(std::move(line));
  }
  return marks;
}

std::optional<LastCommit> DeviceStore::last_commit(const std::string& name) const noexcept {
  try {
    const Json json =
        Json::parse(read_small_file(directory(name) + "/last_commit.json", kMaxRecord));
    LastCommit last;
    if (!json.at("tid").is_null()) last.tid = tid_from(json.at("tid"));
    last.time = json.at("time").get<std::string>();
    last.result = json.at("result").get<std::string>();
    return last;
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

void DeviceStore::remove(const std::string& name) const {
  remove_tree(directory(name));
  sync_directory(devices_);
}

DeviceStore::Loaded DeviceStore::load() const {
  Loaded loaded;
  for (const auto& entry : std::filesystem::directory_iterator(devices_)) {
    const std::string name = entry.path().filename();
    try {
      DeviceRecord record =
          device_record_from(read_small_file(entry.path() / "device.json", kMaxRecord));
      if (record.name != name) throw Failed("it names the device " + record.name);
      loaded.records.push_back(std::move(record));
    } catch (const std::exception& error) {
      log_line("device " + name + " is left as it is: " + entry.path().string() +
               "/device.json: " + error.what());
      loaded.unreadable.push_back(name);
    }
  }
  std::sort(loaded.records.begin(), loaded.records.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return loaded;
}

}  // namespace zbig
