// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/array.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "bigfile/dtype.h"
#include "zodb/error.h"

namespace zbig {
namespace {

constexpr std::uint64_t kMaxBytes = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kMaxItem = std::numeric_limits<std::int32_t>::max();
constexpr std::size_t kMaxDimensions = 64;  // numpy's own limit

bool is_flexible(char kind) { return kind == 'S' || kind == 'U' || kind == 'V'; }
bool is_date(char kind) { return kind == 'M' || kind == 'm'; }

// Nothing above kMaxBytes.
std::optional<std::uint64_t> product(const std::vector<std::uint64_t>& shape, std::uint64_t item) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  std::uint64_t bytes = item;
  for (const std::uint64_t length : shape) {
    if (bytes != 0 && length > kMaxBytes / bytes) return std::nullopt;
    bytes *= length;
  }
  return bytes;
}

// "[ns]", "[25s]", from the metadata of a date's type: ({}, (unit, multiple, 1, 1)).
std::string date_unit(std::span<const Value> state) {
  const auto metadata = state.size() > 8 ? state[8].tuple(2) : std::nullopt;
  if (!metadata || (*metadata)[1].kind() != Kind::kTuple || (*metadata)[1].size() < 2) return "";
  const auto unit = (*metadata)[1][0].bytes();
  const auto multiple = (*metadata)[1][1].integer();
  if (!unit || !multiple || as_text(*unit) == "generic") return "";
  return "[" + (*multiple == 1 ? "" : std::to_string(*multiple)) + std::string(as_text(*unit)) +
         "]";
}

DType decode_dtype(const Value& value) {
  const auto items = value.items();
  const auto callable =
      value.kind() == Kind::kObject && items.size() >= 2 ? items[0].class_name() : std::nullopt;
  if (!callable || callable->module != "numpy" || callable->name != "dtype") {
    throw Corrupt("_dtype is no numpy.dtype");
  }
  const auto code = items[1].size() > 0 ? items[1][0].bytes() : std::nullopt;
  if (!code || code->empty()) throw Corrupt("_dtype has no type code");
  const std::string text(as_text(*code));
  const char kind = text[0];

  DType dtype;
  if (const auto simple = parse_dtype(text)) dtype.item_size = simple->item_size;
  if (is_date(kind)) dtype.item_size = 8;
  std::string order = "|";
  std::string unit;
  if (items.size() >= 3) {
    const auto state = items[2].items();
    const auto stored_order = state.size() >= 8 ? state[1].bytes() : std::nullopt;
    const auto size = state.size() >= 8 ? state[5].integer() : std::nullopt;
    if (!stored_order || stored_order->size() != 1 || !size || *size > kMaxItem) {
      throw Corrupt("_dtype has no byte order or no size");
    }
    order = as_text(*stored_order);
    if (*size >= 0) dtype.item_size = static_cast<std::uint64_t>(*size);
    if (is_date(kind)) unit = date_unit(state);
  }
  if (dtype.item_size == 0 && !is_flexible(kind)) {
    throw Unsupported("the item type '" + text + "' is not one of plain data");
  }
  dtype.str = (order == "=" ? "<" : order);
  if (is_flexible(kind)) {  // the size, whatever the code says of it
    dtype.str += kind + std::to_string(kind == 'U' ? dtype.item_size / 4 : dtype.item_size);
  } else {
    dtype.str += text + unit;
  }
  return dtype;
}

}  // namespace

ArrayState decode_array(const Value& state) {
  const auto pair = state.tuple(2);
  if (!pair || (*pair)[0].kind() != Kind::kDict || (*pair)[1].kind() != Kind::kDict) {
    throw Corrupt("the state of a ZBigArray is no pair of dicts");
  }
  const Value& attributes = (*pair)[0];
  const auto dtype = attributes.get("_dtype");
  const auto shape = attributes.get("_shape");
  const auto order = attributes.get("_order");
  const auto zfile = (*pair)[1].get("zfile");
  const auto ref = zfile ? zfile->ref() : std::nullopt;
  if (!dtype || !shape || !ref) throw Corrupt("a ZBigArray without _dtype, _shape or zfile");

  ArrayState result{{}, *ref};
  const DType item = decode_dtype(*dtype);
  result.info.dtype = item.str;
  if (shape->kind() != Kind::kTuple && shape->kind() != Kind::kList) {
    throw Corrupt("the _shape of a ZBigArray is no tuple");
  }
  if (shape->size() > kMaxDimensions) throw Corrupt("a ZBigArray of too many dimensions");
  for (const Value& value : shape->items()) {
    const auto length = value.integer();
    if (!length || *length < 0) throw Corrupt("the _shape of a ZBigArray holds what is no length");
    result.info.shape.push_back(static_cast<std::uint64_t>(*length));
  }
  if (order) {  // arrays of 2015 have none
    const auto letter = order->bytes();
    if (!letter || (as_text(*letter) != "C" && as_text(*letter) != "F")) {
      throw Corrupt("the _order of a ZBigArray is neither C nor F");
    }
    result.info.order = as_text(*letter)[0];
  }
  const auto nbytes = product(result.info.shape, item.item_size);
  if (!nbytes) throw Unsupported("a ZBigArray of more than 2^63 - 1 bytes");
  result.info.nbytes = *nbytes;
  return result;
}

ArrayInfo checked_array(ArrayInfo info) {
  const auto dtype = parse_dtype(info.dtype);
  if (!dtype) throw Invalid("'" + info.dtype + "' is no simple item type of numpy, such as <f8");
  if (info.shape.empty() || info.shape.size() > kMaxDimensions) {
    throw Invalid("an array has 1 to " + std::to_string(kMaxDimensions) + " dimensions");
  }
  if (info.order != 'C' && info.order != 'F') throw Invalid("the order of an array is C or F");
  const auto nbytes = product(info.shape, dtype->item_size);
  // An empty array has strides all the same, which must be numbers too.
  std::vector<std::uint64_t> longest = info.shape;
  std::replace(longest.begin(), longest.end(), std::uint64_t{0}, std::uint64_t{1});
  if (!nbytes || !product(longest, dtype->item_size)) {
    throw Invalid("an array of more than 2^63 - 1 bytes");
  }
  info.dtype = dtype->str;
  info.nbytes = *nbytes;
  return info;
}

namespace {

// What numpy.dtype.__reduce__ gives: the class, (code, align, copy), and (version, byte order,
// None, None, None, size, alignment, flags), where a size that the code tells is -1.
void write_dtype(RecordWriter& out, const DType& dtype, Flavour flavour) {
  const char kind = dtype.str[1];
  out.global({"numpy", "dtype"});
  out.begin_tuple(3);
  out.text(std::string_view(dtype.str).substr(1));
  if (flavour == Flavour::kPython3) {
    out.boolean(false);
    out.boolean(true);
  } else {
    out.integer(0);
    out.integer(1);
  }
  out.end_tuple();
  out.reduce();
  out.begin_tuple(8);
  out.integer(3);
  out.text(std::string_view(dtype.str).substr(0, 1));
  for (int i = 0; i < 3; ++i) out.none();
  out.integer(is_flexible(kind) ? static_cast<std::int64_t>(dtype.item_size) : -1);
  out.integer(kind == 'U' ? 4 : is_flexible(kind) ? 1 : -1);
  out.integer(kind == 'U' ? 8 : 0);  // numpy's flag "needs initialising"
  out.end_tuple();
  out.build();
}

void write_lengths(RecordWriter& out, const std::vector<std::uint64_t>& lengths) {
  out.begin_tuple(lengths.size());
  for (const std::uint64_t length : lengths) out.integer(static_cast<std::int64_t>(length));
  out.end_tuple();
}

// Bytes from one item to the next one along each axis.
std::vector<std::uint64_t> strides(const ArrayInfo& info, std::uint64_t item) {
  std::vector<std::uint64_t> result(info.shape.size());
  std::uint64_t stride = item;
  for (std::size_t i = 0; i < result.size(); ++i) {
    const std::size_t axis = info.order == 'C' ? result.size() - 1 - i : i;
    result[axis] = stride;
    stride *= info.shape[axis];
  }
  return result;
}

}  // namespace

Bytes encode_array(const ArrayInfo& info, Oid zfile, Flavour flavour) {
  const auto dtype = parse_dtype(info.dtype);
  invariant(dtype.has_value(), "an array is checked before it is encoded");
  RecordWriter out(flavour, ClassId::of(KnownClass::kZBigArray).name());
  out.begin_tuple(2);
  out.begin_dict(4);
  out.text("_dtype");
  write_dtype(out, *dtype, flavour);
  out.text("_shape");
  write_lengths(out, info.shape);
  out.text("_order");
  out.text(std::string_view(&info.order, 1));
  out.text("_stridev");
  write_lengths(out, strides(info, dtype->item_size));
  out.end_dict();
  out.begin_dict(1);
  out.text("zfile");
  out.ref(zfile, ClassId::of(KnownClass::kZBigFile).name());
  out.end_dict();
  out.end_tuple();
  return out.finish();
}

}  // namespace zbig
