// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/array.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "zodb/error.h"

namespace zbig {
namespace {

constexpr std::uint64_t kMaxBytes = std::numeric_limits<std::int64_t>::max();
// Longer item types and deeper shapes than numpy has (its own limit of dimensions is 64).
constexpr std::uint64_t kMaxItem = std::numeric_limits<std::int32_t>::max();
constexpr std::size_t kMaxDimensions = 64;

// A code of numpy, such as f8, S5, M8: its letter, the number behind it, and the unit of a date.
struct Code {
  char letter = 0;
  std::uint64_t number = 0;
  std::string_view unit;  // "ns", "25s"
};

std::optional<Code> parse_code(std::string_view text) {
  if (text.size() < 2) return std::nullopt;
  Code code{text[0], 0, {}};
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data() + 1, end, code.number);
  if (error != std::errc() || code.number > kMaxItem) return std::nullopt;
  std::string_view tail(rest, static_cast<std::size_t>(end - rest));
  if (!tail.empty()) {
    if (tail.size() < 3 || tail.front() != '[' || tail.back() != ']') return std::nullopt;
    code.unit = tail.substr(1, tail.size() - 2);
  }
  return code;
}

bool is_flexible(char letter) { return letter == 'S' || letter == 'U' || letter == 'V'; }
bool is_date(char letter) { return letter == 'M' || letter == 'm'; }

// In bytes; nothing if numpy has no such type of plain data.
std::optional<std::uint64_t> size_of(const Code& code) {
  const auto one_of = [&](std::initializer_list<std::uint64_t> sizes) {
    return std::find(sizes.begin(), sizes.end(), code.number) != sizes.end();
  };
  bool known = false;
  switch (code.letter) {
    case 'b':
      known = code.number == 1;
      break;
    case 'i':
    case 'u':
      known = one_of({1, 2, 4, 8});
      break;
    case 'f':
      known = one_of({2, 4, 8, 16});
      break;
    case 'c':
      known = one_of({8, 16, 32});
      break;
    case 'M':
    case 'm':
      known = code.number == 8;
      break;
    case 'S':
    case 'V':
      known = code.number > 0;
      break;
    case 'U':
      known = code.number > 0;
      break;
    default:
      break;
  }
  if (!known || (!code.unit.empty() && !is_date(code.letter))) return std::nullopt;
  return code.letter == 'U' ? 4 * code.number : code.number;
}

// Byte order plays no part: single bytes and raw data.
bool is_unordered(const Code& code) {
  return code.letter == 'S' || code.letter == 'V' || (code.number == 1 && code.letter != 'U');
}

// A multiple and a name: "ns", "25s".
struct Unit {
  std::int64_t multiple = 1;
  std::string_view name;
};
Unit parse_unit(std::string_view text) {
  Unit unit;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), unit.multiple);
  if (error != std::errc()) return {1, text};
  unit.name = text.substr(static_cast<std::size_t>(rest - text.data()));
  return unit;
}

std::optional<std::uint64_t> product(const std::vector<std::uint64_t>& shape, std::uint64_t item) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  std::uint64_t bytes = item;
  for (const std::uint64_t length : shape) {
    if (bytes != 0 && length > kMaxBytes / bytes) return std::nullopt;
    bytes *= length;
  }
  return bytes;
}

// The metadata of a date's type: ({}, (unit, multiple, 1, 1)).
std::string date_unit(std::span<const Value> state) {
  if (state.size() < 9) return "";
  const auto outer = state[8].tuple(2);
  if (!outer || (*outer)[1].kind() != Kind::kTuple || (*outer)[1].size() < 2) return "";
  const auto unit = (*outer)[1][0].text();
  const auto multiple = (*outer)[1][1].integer();
  if (!unit || !multiple || *unit == "generic") return "";
  return "[" + (*multiple == 1 ? "" : std::to_string(*multiple)) + std::string(*unit) + "]";
}

ItemType decode_item_type(const Value& value) {
  const auto items = value.items();
  if (value.kind() != Kind::kObject || items.size() < 2) throw Corrupt("_dtype is no numpy.dtype");
  const auto callable = items[0].class_name();
  if (!callable || callable->module != "numpy" || callable->name != "dtype") {
    throw Corrupt("_dtype is no numpy.dtype");
  }
  const auto code_text = items[1].size() >= 1 ? items[1][0].text() : std::nullopt;
  const auto code = code_text ? parse_code(*code_text) : std::nullopt;
  if (!code) throw Corrupt("_dtype has no type code");

  ItemType type;
  std::string order = "|";
  if (const auto size = size_of(*code)) type.size = *size;
  std::string unit;
  if (items.size() >= 3) {
    const auto state = items[2].items();
    if (state.size() < 8) throw Corrupt("the state of _dtype has less than 8 items");
    const auto stored_order = state[1].text();
    const auto size = state[5].integer();
    if (!stored_order || stored_order->size() != 1 || !size) {
      throw Corrupt("the state of _dtype has no byte order or no size");
    }
    order = *stored_order;
    if (*size >= 0) type.size = static_cast<std::uint64_t>(*size);
    if (is_date(code->letter)) unit = date_unit(state);
  }
  if (type.size == 0 && !is_flexible(code->letter)) {
    throw Unsupported("the item type '" + std::string(*code_text) + "' has no fixed size");
  }
  if (type.size > kMaxItem) throw Corrupt("_dtype has a size of " + std::to_string(type.size));
  if (order == "=") order = "<";
  std::string letter_and_number(*code_text);
  // Python 2 could pickle a flexible type with a bare number of its own; the size is what counts.
  if (is_flexible(code->letter)) {
    const std::uint64_t number = code->letter == 'U' ? type.size / 4 : type.size;
    letter_and_number = code->letter + std::to_string(number);
  }
  type.str = order + letter_and_number + unit;
  return type;
}

std::uint64_t shape_length(const Value& value) {
  const auto length = value.integer();
  if (!length || *length < 0) throw Corrupt("_shape holds what is no length");
  return static_cast<std::uint64_t>(*length);
}

}  // namespace

std::optional<ItemType> parse_item_type(std::string_view text) {
  char order = '=';
  if (!text.empty() && (text[0] == '<' || text[0] == '>' || text[0] == '|' || text[0] == '=')) {
    order = text[0];
    text.remove_prefix(1);
  }
  const auto code = parse_code(text);
  if (!code) return std::nullopt;
  const auto size = size_of(*code);
  if (!size || *size > kMaxItem) return std::nullopt;
  if (is_unordered(*code)) {
    order = '|';
  } else if (order == '|') {
    return std::nullopt;
  } else if (order == '=') {
    order = '<';
  }
  return ItemType{order + std::string(text), *size};
}

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
  if (!dtype || !shape || !zfile) throw Corrupt("a ZBigArray without _dtype, _shape or zfile");
  const auto ref = zfile->ref();
  if (!ref) throw Corrupt("the zfile of a ZBigArray is no reference");

  ArrayState result{{}, *ref};
  const ItemType type = decode_item_type(*dtype);
  result.info.dtype = type.str;
  if (shape->kind() != Kind::kTuple && shape->kind() != Kind::kList) {
    throw Corrupt("the _shape of a ZBigArray is no tuple");
  }
  if (shape->size() > kMaxDimensions) throw Corrupt("a ZBigArray of too many dimensions");
  for (const Value& length : shape->items()) result.info.shape.push_back(shape_length(length));
  if (order) {  // arrays of 2015 have none
    const auto text = order->text();
    if (!text || (*text != "C" && *text != "F")) throw Corrupt("_order is neither C nor F");
    result.info.order = (*text)[0];
  }
  const auto nbytes = product(result.info.shape, type.size);
  if (!nbytes) throw Unsupported("a ZBigArray of more than 2^63 - 1 bytes");
  result.info.nbytes = *nbytes;
  return result;
}

ArrayInfo checked_array(ArrayInfo info) {
  const auto type = parse_item_type(info.dtype);
  if (!type) throw Invalid("'" + info.dtype + "' is no simple item type of numpy, such as <f8");
  if (info.shape.empty() || info.shape.size() > kMaxDimensions) {
    throw Invalid("an array has 1 to " + std::to_string(kMaxDimensions) + " dimensions");
  }
  if (info.order != 'C' && info.order != 'F') throw Invalid("the order of an array is C or F");
  const auto nbytes = product(info.shape, type->size);
  // An empty array has strides all the same, which must be numbers too.
  std::vector<std::uint64_t> longest = info.shape;
  std::replace(longest.begin(), longest.end(), std::uint64_t{0}, std::uint64_t{1});
  if (!nbytes || !product(longest, type->size)) {
    throw Invalid("an array of more than 2^63 - 1 bytes");
  }
  info.dtype = type->str;
  info.nbytes = *nbytes;
  return info;
}

namespace {

// (version, order, None, None, None, size, alignment, flags), what numpy.dtype.__reduce__ gives.
void write_item_type(RecordWriter& out, const std::string& str, bool python3) {
  const Code code = *parse_code(std::string_view(str).substr(1));
  const bool date = is_date(code.letter);
  out.global({"numpy", "dtype"});
  out.begin_tuple(3);
  out.text(code.letter + std::to_string(code.number));
  if (python3) {
    out.boolean(false);
    out.boolean(true);
  } else {
    out.integer(0);
    out.integer(1);
  }
  out.end_tuple();
  out.reduce();
  out.begin_tuple(date ? 9 : 8);
  out.integer(date ? 4 : 3);
  out.text(str.substr(0, 1));
  for (int i = 0; i < 3; ++i) out.none();
  const bool flexible = is_flexible(code.letter);
  const bool unicode = code.letter == 'U';
  out.integer(flexible ? static_cast<std::int64_t>(*size_of(code)) : -1);
  out.integer(flexible ? (unicode ? 4 : 1) : -1);
  out.integer(unicode ? 8 : 0);
  if (date) {
    const Unit unit = code.unit.empty() ? Unit{1, "generic"} : parse_unit(code.unit);
    out.begin_tuple(2);
    out.begin_dict(0);
    out.end_dict();
    out.begin_tuple(4);
    out.bytes(as_bytes(unit.name));
    out.integer(unit.multiple);
    out.integer(1);
    out.integer(1);
    out.end_tuple();
    out.end_tuple();
  }
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
  const auto type = parse_item_type(info.dtype);
  invariant(type.has_value(), "an array that was not checked");
  RecordWriter out(flavour, ClassId::of(KnownClass::kZBigArray).name());
  out.begin_tuple(2);
  out.begin_dict(4);
  out.text("_dtype");
  write_item_type(out, info.dtype, flavour == Flavour::kPython3);
  out.text("_shape");
  write_lengths(out, info.shape);
  out.text("_order");
  out.text(std::string_view(&info.order, 1));
  out.text("_stridev");
  write_lengths(out, strides(info, type->size));
  out.end_dict();
  out.begin_dict(1);
  out.text("zfile");
  out.ref(zfile, ClassId::of(KnownClass::kZBigFile).name());
  out.end_dict();
  out.end_tuple();
  return out.finish();
}

}  // namespace zbig
