// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <limits>
#include <utility>

#include "bigfile/array.h"
#include "bigfile/folder.h"
#include "bigfile/mapping.h"
#include "bigfile/volume.h"
#include "zodb/btree.h"
#include "zodb/error.h"
#include "zodb/pickle_writer.h"
#include "zodb/record.h"

// Making a volume: a chain of new objects, from the first folder that has to be made to the empty
// block table, hung into the last folder that is there.

namespace zbig {
namespace {

struct NewObject {
  Oid oid;
  Tid base;  // kNoTid: new
  Bytes record;
};

class Maker {
 public:
  Maker(Storage& storage, const NewVolume& volume, Flavour flavour)
      : storage_(storage), volume_(volume), flavour_(flavour) {}

  Oid new_oid() { return storage_.new_oid(); }

  // The volume; `oid` is its own.
  void add_volume(Oid oid) {
    if (volume_.array) {
      const Oid zfile = new_oid();
      objects_.push_back(
          {oid, kNoTid, encode_array(checked_array(*volume_.array), zfile, flavour_)});
      add_zfile(zfile);
    } else {
      add_zfile(oid);
    }
  }

  void add(Oid oid, Tid base, Bytes record) { objects_.push_back({oid, base, std::move(record)}); }

  Tid store() {
    const auto transaction = storage_.begin({volume_.user, volume_.description, {}});
    for (const NewObject& object : objects_) {
      transaction->store(object.oid, object.base, object.record);
    }
    transaction->vote();
    return transaction->finish();
  }

 private:
  void add_zfile(Oid oid) {
    const Oid blktab = new_oid();
    RecordWriter out(flavour_, ClassId::of(KnownClass::kZBigFile).name());
    out.begin_tuple(2);
    out.integer(static_cast<std::int64_t>(volume_.blksize));
    out.ref(blktab, ClassId::of(KnownClass::kLOBTree).name());
    out.end_tuple();
    objects_.push_back({oid, kNoTid, out.finish()});

    BTreeNode table(ClassId::of(KnownClass::kLOBTree));
    std::optional<Oid> last;
    if (!volume_.array && volume_.raw_size > 0) {
      last = new_oid();
      table.shape = BTreeNode::Shape::kEmbedded;
      table.keys.push_back(static_cast<std::int64_t>((volume_.raw_size - 1) / volume_.blksize));
      table.refs.push_back(ref_to(*last, KnownClass::kZBlk0));
    }
    objects_.push_back({blktab, kNoTid, encode_btree_node(table, flavour_)});
    if (last) {
      PayloadEnvelope empty = payload_envelope(flavour_, ClassId::of(KnownClass::kZBlk0), 0);
      append(empty.head, ByteView(empty.tail));
      objects_.push_back({*last, kNoTid, std::move(empty.head)});
    }
  }

  Storage& storage_;
  const NewVolume& volume_;
  const Flavour flavour_;
  std::vector<NewObject> objects_;
};

void check_request(const std::vector<std::string>& names, const NewVolume& volume) {
  for (const std::string& name : names) {
    if (!is_path_name(name)) throw Invalid("a name in the path is not plain UTF-8 text");
  }
  constexpr std::uint64_t kLargest = std::numeric_limits<std::int32_t>::max();
  if (volume.blksize == 0 || volume.blksize > kLargest) {
    throw Invalid("a block has 1 to 2^31 - 1 bytes, not " + std::to_string(volume.blksize));
  }
  if (volume.raw_size > std::uint64_t{std::numeric_limits<std::int64_t>::max()} - kLargest) {
    throw Invalid("a volume of more than 2^63 - 1 bytes");
  }
  if (volume.array) checked_array(*volume.array);
}

bool holds_key(const ObjectRecord& folder, const std::string& name) {
  const auto data =
      folder.is(KnownClass::kPersistentMapping) ? folder.state().get("data") : std::nullopt;
  return data && data->get(name);
}

}  // namespace

Tid create_volume(Storage& storage, const std::string& path, const NewVolume& volume) {
  if (path.starts_with("oid:")) throw Invalid("a new volume is named by a path, not by oid");
  const std::vector<std::string> names = split_path(path);
  check_request(names, volume);

  // Down to the last folder that is there.
  const Tid at = storage.sync();
  auto folder = load_object(storage, kRootOid, at);
  const Flavour flavour = folder ? detect_flavour(folder->record.data()) : Flavour::kPython3;
  std::size_t depth = 0;  // names that lead to `folder`
  std::string walked = "/";
  while (folder) {
    if (!is_folder(folder->record)) {
      throw Invalid(walked + " is there already and is no folder but a " +
                    folder->record.cls().str());
    }
    const auto entries = list_entries(storage, *folder, at);
    const auto entry = std::find_if(entries.begin(), entries.end(),
                                    [&](const FolderEntry& e) { return e.key == names[depth]; });
    if (entry == entries.end()) {
      if (holds_key(folder->record, names[depth])) {
        throw Invalid(walked + " has " + names[depth] + " already, which is no persistent object");
      }
      break;
    }
    walked += (depth > 0 ? "/" : "") + names[depth];
    if (++depth == names.size()) throw Invalid(path + " is there already");
    folder = load_object(storage, entry->oid, at);
    if (!folder) throw Corrupt(walked + ": object " + entry->oid.hex() + " does not exist");
  }

  Maker maker(storage, volume, flavour);
  const auto class_of = [&](std::size_t i) {  // of what names[i] is going to be
    if (i + 1 < names.size()) return KnownClass::kPersistentMapping;
    return volume.array ? KnownClass::kZBigArray : KnownClass::kZBigFile;
  };
  Oid oid = maker.new_oid();
  const NewEntry first{names[depth], oid, class_of(depth)};
  if (!folder) {
    maker.add(kRootOid, kNoTid, new_mapping(first, flavour));
  } else if (folder->record.is(KnownClass::kPersistentMapping)) {
    try {
      maker.add(folder->oid, folder->serial, mapping_with(folder->record, first, flavour));
    } catch (const Error&) {
      rethrow_with_context(walked);
    }
  } else {
    throw Unsupported(walked + " is a BTree folder, to which zbig does not add");
  }
  while (++depth < names.size()) {
    const Oid below = maker.new_oid();
    maker.add(oid, kNoTid, new_mapping({names[depth], below, class_of(depth)}, flavour));
    oid = below;
  }
  maker.add_volume(oid);
  return maker.store();
}

}  // namespace zbig
