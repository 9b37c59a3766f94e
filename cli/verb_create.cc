// SPDX-License-Identifier: BSD-3-Clause

#include <array>
#include <iostream>
#include <limits>

#include "bigfile/dtype.h"
#include "bigfile/volume.h"
#include "cli/forms.h"
#include "cli/offline_verbs.h"

// zbig create: a new volume, and if need be the database that holds it.

namespace zbig {
namespace {

constexpr std::array<Option, 7> kOptions{{
    {"size", '\0', "SIZE", "of the volume; may be left out with --shape or --raw"},
    {"dtype", '\0', "TYPE", "numpy's name of the items' type (f8, <i4, ...); default: u1"},
    {"shape", '\0', "N,N,...", "of the array; default: one dimension"},
    {"block-size", '\0', "SIZE", "default: 2M, the only one that Python can map"},
    {"raw", '\0', "", "a bare ZBigFile and no ZBigArray; --size is rounded up to whole blocks"},
    {"message", 'm', "TEXT", "the description of the transaction"},
    {"user", '\0', "NAME", "who makes it"},
}};

// numpy's own limit.
constexpr std::uint64_t kMostBytes = std::numeric_limits<std::int64_t>::max();

// The number of items, or Invalid.
std::uint64_t product(const std::vector<std::uint64_t>& shape, std::uint64_t item_size) {
  std::uint64_t bytes = item_size;
  for (const std::uint64_t extent : shape) {
    if (extent == 0) return 0;
    if (bytes > kMostBytes / extent) throw Invalid("--shape: more than 2^63 - 1 bytes");
    bytes *= extent;
  }
  return bytes;
}

// The array that --size, --dtype and --shape describe.
ArrayInfo array_of(const Arguments& arguments, std::optional<std::uint64_t> size) {
  const std::string name = arguments.get_or("dtype", "u1");
  const auto dtype = parse_dtype(name);
  if (!dtype) {
    throw AdvisedError(ErrorCode::kInvalid, "--dtype: '" + name + "' is no simple numpy type",
                       "simple types are u1, i4, f8, c16 and the like, S10, V16, uint8, float64");
  }
  ArrayInfo array;
  array.dtype = dtype->str;
  if (const auto text = arguments.get("shape")) {
    array.shape = parse_shape(*text);
  } else {
    if (*size % dtype->item_size != 0) {
      throw Invalid("--size: " + std::to_string(*size) + " is no multiple of the " +
                    std::to_string(dtype->item_size) + " bytes of a " + dtype->str);
    }
    array.shape = {*size / dtype->item_size};
  }
  array.nbytes = product(array.shape, dtype->item_size);
  if (size && *size != array.nbytes) {
    throw Invalid("--size says " + std::to_string(*size) + " bytes, --dtype and --shape " +
                  std::to_string(array.nbytes));
  }
  return array;
}

std::unique_ptr<Storage> open_to_create(const std::string& url) {
  try {
    return open_storage(url, OpenMode::kCreate);
  } catch (const Busy& error) {
    throw AdvisedError(ErrorCode::kBusy, error.what(),
                       "another program has it open for writing: if that is zbigd, detach its "
                       "writable devices of this database (`zbig status` lists them), create the "
                       "volume, and attach them again");
  }
}

int run(const Arguments& arguments) {
  std::optional<std::uint64_t> size;
  if (const auto text = arguments.get("size")) size = parse_size(*text, "--size");
  const bool raw = arguments.has("raw");
  if (!size && !raw && !arguments.has("shape")) {
    throw AdvisedError(ErrorCode::kInvalid, "--size is missing", usage_line(create_verb()));
  }
  if (raw && (arguments.has("dtype") || arguments.has("shape"))) {
    throw Invalid("--raw makes a file of bytes: it has no --dtype and no --shape");
  }
  NewVolume volume;
  if (const auto text = arguments.get("block-size")) {
    volume.blksize = parse_size(*text, "--block-size");
  }
  if (raw) {
    volume.raw_size = size.value_or(0);
  } else {
    volume.array = array_of(arguments, size);
  }
  volume.user = arguments.get_or("user", "");
  volume.description = arguments.get_or("message", "");
  const auto storage = open_to_create(arguments[0]);
  std::cout << create_volume(*storage, arguments[1], volume).hex() << "\n";
  return 0;
}

}  // namespace

Verb create_verb() {
  return {"create", "URL VOLUME", "makes a volume, and the database if there is none", kOptions,
          run};
}

}  // namespace zbig
