// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <array>
#include <numeric>

#include "zodb/error.h"
#include "zodb/filestorage/file_storage.h"

// FileStorage's locate, read and load: where the bytes of a device come from, so here system calls
// and copies are counted. A payload goes from the page cache to the caller's buffer in one copy;
// what lies close together in the file (the 512 chunks of a ZBlk1, or their headers) in one system
// call.

namespace zbig::fs {

namespace {

// A ZBlk1's chunks are 42 bytes of header and a few of pickle apart, other objects of the same
// commit a little more. Reading over such a gap costs less than another system call.
constexpr std::uint64_t kLargestGap = 2048;
constexpr std::size_t kMostBuffers = 1000;  // below IOV_MAX

// Of a record that is loaded whole, how much is read together with its header: a bucket of a BTree
// or a chunk of 4 KiB fits.
constexpr std::size_t kGuess = 6144;

struct Extent {
  std::uint64_t position;
  std::span<std::byte> out;

  std::uint64_t end() const { return position + out.size(); }
};

// The indices of `positions` in ascending order of what they hold.
std::vector<std::size_t> by_position(const std::vector<std::uint64_t>& positions) {
  std::vector<std::size_t> order(positions.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (!std::is_sorted(positions.begin(), positions.end())) {
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return positions[a] < positions[b]; });
  }
  return order;
}

// Reads extents in ascending order of position.
void read_extents(const DataFile& file, std::span<const Extent> extents) {
  std::array<std::byte, kLargestGap> skipped;
  std::vector<iovec> list;
  for (std::size_t i = 0; i < extents.size();) {
    const auto begin = extents[i].position;
    auto end = extents[i].end();
    list.assign(1, {extents[i].out.data(), extents[i].out.size()});
    for (++i; i < extents.size() && list.size() < kMostBuffers; ++i) {
      const auto& next = extents[i];
      if (next.position < end || next.position - end > kLargestGap) break;
      if (next.position > end) {
        list.push_back({skipped.data(), static_cast<std::size_t>(next.position - end)});
      }
      list.push_back({next.out.data(), next.out.size()});
      end = next.end();
    }
    file.read(begin, list);
  }
}

}  // namespace

void FileStorage::locate(std::span<const Oid> oids, Tid at,
                         std::span<std::optional<RecordRef>> out) const {
  invariant(oids.size() == out.size(), "locate gives one answer an oid");
  const auto sight = look_up(oids);
  const RevisionReader reader(*sight.file, sight.committed);
  Window window(*sight.file);
  for (const auto i : by_position(sight.positions)) {
    out[i].reset();
    const auto position = sight.positions[i];
    if (position == 0) continue;
    // One header alone is read as it is; many are often close together.
    const auto newest =
        oids.size() == 1
            ? reader.at(position, oids[i])
            : reader.parse(position, oids[i], window.some(position, RevisionReader::kNeeded));
    const auto revision = reader.as_of(newest, at);
    if (!revision) continue;
    if (const auto data = reader.data(*revision)) {
      out[i] = RecordRef{oids[i], revision->header.tid, data->size, data->position,
                         sight.file->generation()};
    }
  }
}

RecordRef FileStorage::found_again(const RecordRef& ref) const {
  const auto found = locate(ref.oid, ref.serial);
  if (!found || found->serial != ref.serial || found->size != ref.size) {
    throw NotFound("object " + ref.oid.brief() + " of tid " + ref.serial.hex() + " in " + path_ +
                   " was packed away");
  }
  return *found;
}

void FileStorage::read(std::span<const ReadPart> parts) const {
  const auto file = look_up({}).file;
  std::vector<Extent> extents;
  extents.reserve(parts.size());
  for (const auto& part : parts) {
    auto ref = part.ref;
    invariant(part.offset <= ref.size && part.out.size() <= ref.size - part.offset,
              "a read keeps within its record");
    // A pack may come between finding it again and the read: then once more.
    while (ref.generation != file->generation()) {
      ref = found_again(ref);
      if (ref.generation > file->generation()) return read(parts);
    }
    if (!part.out.empty()) extents.push_back({ref.position + part.offset, part.out});
  }
  const auto before = [](const Extent& left, const Extent& right) {
    return left.position < right.position;
  };
  if (!std::is_sorted(extents.begin(), extents.end(), before)) {
    std::sort(extents.begin(), extents.end(), before);
  }
  read_extents(*file, extents);
}

void FileStorage::read_direct(std::span<DirectRead> reads, Tid at) const {
  std::vector<Oid> oids;
  oids.reserve(reads.size());
  for (const auto& direct : reads) oids.push_back(direct.oid);
  const auto sight = look_up(oids);
  const auto& file = *sight.file;
  const auto order = by_position(sight.positions);

  std::vector<std::byte> headers(reads.size() * RecordHeader::kSize);
  const auto header_of = [&](std::size_t i) {
    return std::span(headers).subspan(i * RecordHeader::kSize, RecordHeader::kSize);
  };
  std::vector<Extent> extents;
  extents.reserve(3 * reads.size());
  // Beyond what is committed there is nothing, or what another process is writing.
  const auto add = [&](std::uint64_t position, std::span<std::byte> out) {
    if (position >= sight.committed.end) return;
    const auto there = std::min<std::uint64_t>(out.size(), sight.committed.end - position);
    if (there > 0) extents.push_back({position, out.first(static_cast<std::size_t>(there))});
  };
  for (const auto i : order) {
    if (sight.positions[i] == 0) continue;
    const auto data = sight.positions[i] + RecordHeader::kSize;
    add(sight.positions[i], header_of(i));
    add(data, reads[i].head);
    add(data + reads[i].offset, reads[i].out);
  }
  read_extents(file, extents);

  const RevisionReader reader(file, sight.committed);
  for (const auto i : order) {
    auto& direct = reads[i];
    const auto position = sight.positions[i];
    const auto header = RecordHeader::parse(header_of(i).data());
    if (position == 0) {
      direct.answer(std::nullopt);
    } else if (header.tid > at || header.data_size == 0) {  // what is wanted is elsewhere
      Storage::read_direct(std::span(&direct, 1), at);
    } else {
      reader.parse(position, direct.oid, header_of(i));
      direct.answer(RecordRef{direct.oid, header.tid, header.data_size,
                              position + RecordHeader::kSize, file.generation()});
    }
  }
}

void FileStorage::load(std::span<const Oid> oids, Tid at, std::uint64_t max_size,
                       std::span<std::optional<Record>> out) const {
  invariant(oids.size() == out.size(), "load gives one answer an oid");
  const auto sight = look_up(oids);
  const auto& file = *sight.file;
  const RevisionReader reader(file, sight.committed);
  Window window(file);
  for (const auto i : by_position(sight.positions)) {
    out[i].reset();
    const auto begin = sight.positions[i];
    if (begin == 0) continue;
    const auto got = window.some(begin, kGuess);
    const auto revision = reader.as_of(reader.parse(begin, oids[i], got), at);
    if (!revision) continue;
    const auto place = reader.data(*revision);
    if (!place) continue;
    if (place->size > max_size) {
      file.corrupt(place->position, "the record of object " + oids[i].brief() + " has " +
                                        std::to_string(place->size) + " bytes where at most " +
                                        std::to_string(max_size) + " are expected");
    }
    Record record{revision->header.tid, Bytes(static_cast<std::size_t>(place->size))};
    const std::span data(record.data);
    std::size_t have = 0;
    if (place->position >= begin && place->position - begin < got.size()) {
      const auto rest = got.subspan(static_cast<std::size_t>(place->position - begin));
      have = std::min(rest.size(), data.size());
      std::copy_n(rest.begin(), have, data.begin());
    }
    file.read(place->position + have, data.subspan(have));
    out[i] = std::move(record);
  }
}

}  // namespace zbig::fs
