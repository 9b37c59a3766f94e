// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/folder.h"

#include <algorithm>

#include "zodb/error.h"

namespace zbig {
namespace {

std::vector<FolderEntry> mapping_entries(const ObjectRecord& record) {
  const Value state = record.state();
  if (state.is_none()) return {};
  if (state.kind() != Kind::kDict) {
    throw Corrupt(std::string("the state of a persistent mapping is no dict but ") +
                  kind_name(state.kind()));
  }
  auto data = state.get("data");
  if (!data) data = state.get("_container");  // of ZODB before 3.4
  if (!data) return {};
  if (data->kind() != Kind::kDict) throw Corrupt("the data of a persistent mapping are no dict");
  std::vector<FolderEntry> entries;
  const auto items = data->items();
  for (std::size_t i = 0; i + 1 < items.size(); i += 2) {
    const auto key = items[i].bytes();
    const auto ref = items[i + 1].ref();
    if (key && ref) {
      entries.push_back({std::string(as_text(*key)), ref->oid,
                         ref->form == RefForm::kOid ? std::string() : ref->cls.str()});
    }
  }
  return entries;
}

std::optional<KnownClass> class_of(const FolderEntry& entry) {
  const std::size_t dot = entry.cls.rfind('.');
  if (dot == std::string::npos) return std::nullopt;
  const std::string_view text = entry.cls;
  const auto id = ClassId::find({text.substr(0, dot), text.substr(dot + 1)});
  return id ? std::optional(id->known()) : std::nullopt;
}

// Well-formed UTF-8 without control characters?
bool is_plain_text(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x20 || byte == 0x7f) return false;
    const std::size_t length = byte < 0x80       ? 1
                               : byte >> 5 == 6  ? 2
                               : byte >> 4 == 14 ? 3
                               : byte >> 3 == 30 ? 4
                                                 : 0;
    if (length == 0 || i + length > text.size()) return false;
    std::uint32_t point = length == 1 ? byte : byte & (0xffu >> (length + 1));
    for (std::size_t k = 1; k < length; ++k) {
      const auto more = static_cast<unsigned char>(text[i + k]);
      if (more >> 6 != 2) return false;
      point = point << 6 | (more & 0x3fu);
    }
    constexpr std::uint32_t kFirst[] = {0, 0, 0x80, 0x800, 0x10000};
    if (point < kFirst[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) {
      return false;
    }
    i += length;
  }
  return true;
}

}  // namespace

bool is_folder(const ObjectRecord& record) {
  return record.is(KnownClass::kPersistentMapping) || record.is(KnownClass::kOOBTree);
}

std::vector<FolderEntry> list_entries(const Storage& storage, const LoadedObject& folder, Tid at) {
  if (folder.record.is(KnownClass::kOOBTree)) return list_folder(storage, folder.oid, at);
  try {
    return mapping_entries(folder.record);
  } catch (const Error&) {
    rethrow_with_context(describe_object(folder.oid, folder.serial));
  }
}

bool may_hold_volumes(const FolderEntry& entry) {
  if (entry.cls.empty()) return true;  // only its record can tell
  const auto cls = class_of(entry);
  return is_volume_class(entry) || cls == KnownClass::kPersistentMapping ||
         cls == KnownClass::kOOBTree;
}

bool is_volume_class(const FolderEntry& entry) {
  const auto cls = class_of(entry);
  return cls == KnownClass::kZBigFile || cls == KnownClass::kZBigArray;
}

std::vector<std::string> split_path(const std::string& path) {
  if (!path.starts_with('/') || path.size() < 2) {
    throw Invalid("'" + path + "' is no volume: write /NAME, /FOLDER/NAME or oid:HEX");
  }
  std::vector<std::string> names;
  for (std::size_t at = 1; at <= path.size();) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    if (end == at) throw Invalid("'" + path + "' is no volume: a name in it is empty");
    names.push_back(path.substr(at, end - at));
    at = end + 1;
  }
  return names;
}

bool is_path_name(std::string_view name) {
  return !name.empty() && name.find('/') == std::string_view::npos && is_plain_text(name);
}

std::string short_hex(Oid oid) {
  const std::string digits = oid.hex();
  return digits.substr(std::min(digits.find_first_not_of('0'), digits.size() - 1));
}

}  // namespace zbig
