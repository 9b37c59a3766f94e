// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/volume.h"

#include <algorithm>
#include <limits>
#include <unordered_set>
#include <utility>

#include "bigfile/array.h"
#include "bigfile/folder.h"
#include "bigfile/volume_object.h"
#include "zodb/btree.h"
#include "zodb/error.h"
#include "zodb/record.h"

namespace zbig {
namespace {

constexpr std::uint64_t kMaxSize = std::numeric_limits<std::int64_t>::max();
// A block is one record. No machine has the memory for a larger one.
constexpr std::int64_t kMaxBlksize = std::int64_t{1} << 40;
// Names given in a message.
constexpr std::size_t kNamesInMessage = 8;

void take_zfile(Volume& volume, Oid oid, const ObjectRecord& record) {
  const auto state = record.state().tuple(2);
  const auto blksize = state ? (*state)[0].integer() : std::nullopt;
  const auto blktab = state ? (*state)[1].ref() : std::nullopt;
  if (!blksize || !blktab) throw Corrupt("the state of a ZBigFile is not (blksize, blktab)");
  if (*blksize <= 0) throw Corrupt("a ZBigFile with blocks of " + std::to_string(*blksize));
  if (*blksize > kMaxBlksize) {
    throw Unsupported("a ZBigFile with blocks of " + std::to_string(*blksize) + " bytes");
  }
  if (blktab->id && blktab->id->known() != KnownClass::kLOBTree) {
    throw Corrupt("the blktab of a ZBigFile is a " + blktab->cls.str());
  }
  volume.zfile = oid;
  volume.blksize = static_cast<std::uint64_t>(*blksize);
  volume.blktab = blktab->oid;
}

bool is_volume(const ObjectRecord& record) {
  return record.is(KnownClass::kZBigFile) || record.is(KnownClass::kZBigArray);
}

// `object` is a volume.
Volume volume_from(const Storage& storage, const LoadedObject& object, const std::string& path,
                   Tid at) {
  Volume volume;
  volume.path = path;
  volume.oid = object.oid;
  volume.serial = object.serial;
  try {
    if (object.record.is(KnownClass::kZBigFile)) {
      take_zfile(volume, object.oid, object.record);
      return volume;
    }
    volume.kind = VolumeKind::kArray;
    ArrayState array = decode_array(object.record.state());
    volume.array = std::move(array.info);
    const auto zfile = load_object(storage, array.zfile.oid, at);
    if (!zfile) throw Corrupt("its zfile " + array.zfile.oid.hex() + " does not exist");
    if (!zfile->record.is(KnownClass::kZBigFile)) {
      throw Corrupt("its zfile " + array.zfile.oid.hex() + " is a " + zfile->record.cls().str());
    }
    take_zfile(volume, zfile->oid, zfile->record);
    return volume;
  } catch (const Error&) {
    rethrow_with_context(path + ", " + describe_object(object.oid, object.serial));
  }
}

std::string described(const ObjectRecord& record, const std::vector<FolderEntry>& entries) {
  std::string text =
      record.is(KnownClass::kPersistentMapping) ? "a persistent mapping" : "a BTree folder";
  if (entries.empty()) return text + " with nothing in it";
  text += " with ";
  for (std::size_t i = 0; i < std::min(entries.size(), kNamesInMessage); ++i) {
    if (i > 0) text += ", ";
    text += entries[i].key;
  }
  if (entries.size() > kNamesInMessage) {
    text += ", ... (" + std::to_string(entries.size()) + " in all)";
  }
  return text;
}

}  // namespace

std::optional<Volume> volume_of_object(const Storage& storage, Oid oid, const std::string& path,
                                       Tid at) {
  const auto object = load_object(storage, oid, at);
  if (!object) return std::nullopt;
  if (!is_volume(object->record)) {
    throw Invalid(path + " is no volume but a " + object->record.cls().str());
  }
  return volume_from(storage, *object, path, at);
}

std::uint64_t volume_size(const Volume& volume, std::optional<std::int64_t> last_block) {
  if (last_block && *last_block < 0) {
    throw Corrupt(volume.path + ": its last block has the number " + std::to_string(*last_block));
  }
  const std::uint64_t blocks = last_block ? static_cast<std::uint64_t>(*last_block) + 1 : 0;
  if (volume.array) return volume.array->nbytes;
  if (blocks > kMaxSize / volume.blksize) {
    throw Unsupported(volume.path + " is larger than 2^63 - 1 bytes: its last block is " +
                      std::to_string(*last_block) + ", of " + std::to_string(volume.blksize) +
                      " bytes");
  }
  return blocks * volume.blksize;
}

Volume find_volume(const Storage& storage, const std::string& name, Tid at) {
  const std::string where = storage.url() + " as of " + at.hex();
  if (name.starts_with("oid:")) {
    const auto oid = Oid::parse_hex(std::string_view(name).substr(4));
    if (!oid) throw Invalid("'" + name + "' is no volume: write oid: and 1 to 16 hex digits");
    auto volume = volume_of_object(storage, *oid, name, at);
    if (!volume) throw NotFound("no volume " + name + " in " + where + ": no such object");
    return std::move(*volume);
  }
  const std::vector<std::string> names = split_path(name);
  auto object = load_object(storage, kRootOid, at);
  std::string walked;
  const auto not_found = [&](const std::string& why) {
    throw NotFound("no volume " + name + " in " + where + ": " + why);
  };
  if (!object) not_found("the database is empty");
  for (const std::string& step : names) {
    const std::string here = walked.empty() ? "/" : walked;
    if (!is_folder(object->record)) {
      not_found(here + " is no folder but a " + object->record.cls().str());
    }
    const auto entries = list_entries(storage, *object, at);
    const auto entry = std::find_if(entries.begin(), entries.end(),
                                    [&](const FolderEntry& e) { return e.key == step; });
    if (entry == entries.end()) not_found(here + " is " + described(object->record, entries));
    walked += "/" + step;
    object = load_object(storage, entry->oid, at);
    if (!object) throw Corrupt(walked + ": object " + entry->oid.hex() + " does not exist");
  }
  if (!is_volume(object->record)) {
    if (!is_folder(object->record)) not_found("it is a " + object->record.cls().str());
    not_found(walked + " is " + described(object->record, list_entries(storage, *object, at)));
  }
  return volume_from(storage, *object, name, at);
}

std::vector<Volume> list_volumes(const Storage& storage, Tid at,
                                 const std::function<void(const std::string&)>& on_error) {
  std::vector<Volume> volumes;
  struct Place {
    std::string path;  // of the folder, "" for the root
    Oid oid;
  };
  std::vector<Place> level{{"", kRootOid}};
  std::unordered_set<Oid> folders{kRootOid};
  // Level by level, so that a storage with latency is asked for a whole level at once.
  while (!level.empty()) {
    std::vector<Oid> oids;
    oids.reserve(level.size());
    for (const Place& place : level) oids.push_back(place.oid);
    std::vector<std::optional<Record>> records(oids.size());
    storage.load(oids, at, Storage::kMaxLoad, records);
    std::vector<Place> next;
    for (std::size_t i = 0; i < level.size(); ++i) {
      const Place& place = level[i];
      try {
        if (!records[i]) {
          if (place.oid == kRootOid) continue;  // an empty database
          throw Corrupt(place.path + ": object " + place.oid.hex() + " does not exist");
        }
        const Tid serial = records[i]->serial;
        const LoadedObject object = [&]() -> LoadedObject {
          try {
            return {place.oid, serial, ObjectRecord::parse(std::move(records[i]->data))};
          } catch (const Error&) {
            rethrow_with_context(place.path + ", " + describe_object(place.oid, serial));
          }
        }();
        if (is_volume(object.record)) {
          volumes.push_back(volume_from(storage, object, place.path, at));
        } else if (is_folder(object.record)) {
          for (const FolderEntry& entry : list_entries(storage, object, at)) {
            if (!may_hold_volumes(entry)) continue;
            // What no path can say is given by oid.
            const bool by_path = !place.path.starts_with("oid:") && is_path_name(entry.key);
            const std::string path =
                by_path ? place.path + "/" + entry.key : "oid:" + short_hex(entry.oid);
            const bool volume_class = is_volume_class(entry);
            if (!volume_class && !folders.insert(entry.oid).second) continue;
            next.push_back({path, entry.oid});
          }
        }
      } catch (const Error& error) {
        if (error.code() == ErrorCode::kUnavailable) throw;
        on_error(error.what());
      }
    }
    level = std::move(next);
  }
  std::sort(volumes.begin(), volumes.end(),
            [](const Volume& a, const Volume& b) { return a.path < b.path; });
  return volumes;
}

}  // namespace zbig
