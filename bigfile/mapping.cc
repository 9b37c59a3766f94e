// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/mapping.h"

#include <algorithm>
#include <optional>

#include "zodb/error.h"
#include "zodb/pickle_reader.h"

namespace zbig {
namespace {

// Values written anew at most, and how deep.
constexpr std::size_t kMaxValues = 100'000;
constexpr int kMaxNesting = 20;
// Python writes a longer dict in several batches.
constexpr std::size_t kMaxEntries = 1000;

class Rewriter {
 public:
  Rewriter(Flavour flavour, ClassName cls) : out_(flavour, cls) {}

  // The record of a mapping with these keys and values, and one more entry. Nothing if it holds
  // what cannot be written.
  std::optional<Bytes> write(std::span<const Value> items, const NewEntry* entry) {
    if (items.size() / 2 + 1 > kMaxEntries) return std::nullopt;
    out_.begin_dict(1);
    out_.text("data");
    out_.begin_dict(items.size() / 2 + (entry != nullptr ? 1 : 0));
    for (const Value& value : items) {
      if (!write_value(value, 0)) return std::nullopt;
    }
    if (entry != nullptr) {
      out_.text(entry->name);
      out_.ref(entry->oid, ClassId::of(entry->cls).name());
    }
    out_.end_dict();
    out_.end_dict();
    return out_.finish();
  }

 private:
  bool write_value(const Value& value, int nesting) {
    if (nesting > kMaxNesting || ++values_ > kMaxValues) return false;
    switch (value.kind()) {
      case Kind::kNone:
        out_.none();
        return true;
      case Kind::kBool:
        out_.boolean(*value.boolean());
        return true;
      case Kind::kInt:
        out_.integer(*value.integer());
        return true;
      case Kind::kBytes:
        out_.bytes(*value.bytes());
        return true;
      case Kind::kString:
      case Kind::kText:
        out_.text(as_text(*value.bytes()));
        return true;
      case Kind::kClass:
        out_.global(*value.class_name());
        return true;
      case Kind::kRef: {
        const auto ref = value.ref();
        if (!ref) return false;
        out_.ref(ref->oid, ref->cls, ref->form);
        return true;
      }
      case Kind::kTuple:
        out_.begin_tuple(value.size());
        for (const Value& item : value.items()) {
          if (!write_value(item, nesting + 1)) return false;
        }
        out_.end_tuple();
        return true;
      case Kind::kDict:
        if (value.size() / 2 > kMaxEntries) return false;
        out_.begin_dict(value.size() / 2);
        for (const Value& item : value.items()) {
          if (!write_value(item, nesting + 1)) return false;
        }
        out_.end_dict();
        return true;
      default:
        return false;
    }
  }

  RecordWriter out_;
  std::size_t values_ = 0;
};

void append_counted(Bytes& out, char short_op, char long_op, std::string_view text) {
  if (text.size() < 256 && short_op != 0) {
    append(out, std::string_view(&short_op, 1));
    out.push_back(static_cast<std::byte>(text.size()));
  } else {
    append(out, std::string_view(&long_op, 1));
    for (int shift = 0; shift < 32; shift += 8) {
      out.push_back(static_cast<std::byte>(text.size() >> shift & 0xff));
    }
  }
  append(out, text);
}

// The record with the entry set behind all others. It ends with "s.": the dict of the entries is on
// the stack, and is about to become the value of "data".
Bytes spliced(const ObjectRecord& mapping, const NewEntry& entry, Flavour flavour) {
  const ByteView data = mapping.data();
  const std::string_view text = as_text(data);
  if (!text.ends_with("s.")) {
    throw Unsupported("the folder is pickled in a way that zbig does not add to");
  }
  Bytes out(data.begin(), data.end() - 2);
  if (flavour == Flavour::kPython3) {
    append_counted(out, 0, 'X', entry.name);
  } else {
    append_counted(out, 'U', 'T', entry.name);
  }
  const bool tuple2 = flavour != Flavour::kPython2Protocol1;
  const bool binary_oid = flavour == Flavour::kPython3 || flavour == Flavour::kPython2Protocol3;
  if (!tuple2) append(out, "(");
  Bytes oid(8);
  put_be<8>(oid.data(), entry.oid.value);
  append_counted(out, binary_oid ? 'C' : 'U', 0, as_text(oid));
  const ClassName cls = ClassId::of(entry.cls).name();
  append(out, "c");
  append(out, cls.module);
  append(out, "\n");
  append(out, cls.name);
  append(out, tuple2 ? "\n\x86Qss." : "\ntQss.");
  return out;
}

}  // namespace

Bytes new_mapping(const NewEntry& entry, Flavour flavour) {
  Rewriter rewriter(flavour, ClassId::of(KnownClass::kPersistentMapping).name());
  return *rewriter.write({}, &entry);
}

Bytes mapping_with(const ObjectRecord& mapping, const NewEntry& entry, Flavour flavour) {
  const Value state = mapping.state();
  const auto data = state.get("data");
  if (state.kind() != Kind::kDict || state.size() != 2 || !data || data->kind() != Kind::kDict) {
    throw Unsupported("the folder's state is not {'data': {...}}");
  }
  const auto old = Rewriter(flavour, mapping.cls()).write(data->items(), nullptr);
  if (old && std::ranges::equal(*old, mapping.data())) {
    if (auto record = Rewriter(flavour, mapping.cls()).write(data->items(), &entry)) {
      return std::move(*record);
    }
  }
  Bytes record = spliced(mapping, entry, flavour);
  const ObjectRecord read_back = ObjectRecord::parse(record);
  const auto entries = read_back.state().get("data");
  invariant(entries && entries->size() == data->size() + 2, "an entry was added to a folder");
  return record;
}

}  // namespace zbig
