// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/block_writer.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "bigfile/block_reader.h"
#include "zodb/error.h"

namespace zbig {
namespace {

// Of the chunks that are written; readers take any.
constexpr std::uint64_t kChunkSize = 4096;
// Old bytes are compared in pieces that grow to this, as most that differ do so at once.
constexpr std::uint64_t kFirstPiece = 4096;
constexpr std::uint64_t kLargestPiece = 1u << 20;

void zero(std::span<std::byte> out) {
  if (!out.empty()) std::memset(out.data(), 0, out.size());
}

bool equal(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

// What of [0, upto) no extent covers.
ExtentList gaps(const ExtentList& extents, std::uint64_t upto) {
  ExtentList result;
  std::uint64_t at = 0;
  for (const Extent& extent : extents) {
    if (extent.offset >= upto) break;
    if (extent.offset > at) result.push_back({at, extent.offset - at});
    at = extent.end();
  }
  if (at < upto) result.push_back({at, upto - at});
  return result;
}

}  // namespace

BlockWriter::BlockWriter(Storage& storage, const Volume& volume, Tid head, BlockFormat format,
                         Flavour flavour, TransactionSink& sink)
    : storage_(storage),
      blksize_(volume.blksize),
      format_(format),
      flavour_(flavour),
      sink_(sink),
      caches_(head),
      objects_(storage, head, caches_, volume.blksize),
      blktab_(objects_, volume.blktab, KnownClass::kLOBTree, [this] { return new_oid(); }),
      full_chunk_(payload_envelope(flavour, ClassId::of(KnownClass::kZData), kChunkSize)) {}

std::vector<BlockWriter::Known> BlockWriter::known(std::span<const std::uint64_t> blocks) const {
  std::vector<Known> result(blocks.size());
  std::vector<Ref> refs;
  std::vector<std::size_t> index;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (const auto ref = blktab_.get(static_cast<std::int64_t>(blocks[i]))) {
      refs.push_back(*ref);
      index.push_back(i);
    }
  }
  const std::vector<BlockObject> zblks = objects_.block_objects(refs);
  for (std::size_t i = 0; i < zblks.size(); ++i) {
    if (zblks[i].cls == KnownClass::kZData || zblks[i].length > blksize_) {
      throw Corrupt("block " + std::to_string(blocks[index[i]]) + ", object " +
                    zblks[i].ref.oid.hex() + ": it is a ZData, or longer than a block");
    }
    result[index[i]].zblk = zblks[i];
  }
  return result;
}

// Old bytes of a block that exists.
void BlockWriter::read_old(const Known& known, const BlockBuffer& buffer, std::uint64_t offset,
                           std::span<std::byte> out) const {
  const BlockPart part{buffer.block,
                       {known.zblk->ref.oid, ClassId::of(known.zblk->cls), RefForm::kClass},
                       offset,
                       out};
  read_blocks(objects_, blksize_, {&part, 1});
}

bool BlockWriter::is_unchanged(const BlockBuffer& buffer, const Known& known) const {
  if (!known.zblk) return false;
  Bytes old;
  std::uint64_t piece = kFirstPiece;
  for (const Extent& extent : buffer.dirty) {
    for (std::uint64_t at = extent.offset; at < extent.end();) {
      const std::uint64_t length = std::min(piece, extent.end() - at);
      old.resize(length);
      read_old(known, buffer, at, old);
      if (!equal(old, buffer.bytes.subspan(at, length))) return false;
      at += length;
      piece = std::min(piece * 4, kLargestPiece);
    }
  }
  return true;
}

void BlockWriter::keep(const Known& known) {
  sink_.check(known.zblk->ref.oid, known.zblk->ref.serial);
}

// Puts old bytes, or zeros, where the block is not dirty. Returns an end of the content: all that
// lies beyond is zero, and is not filled.
std::uint64_t BlockWriter::fill(BlockBuffer& buffer, const Known& known) const {
  std::uint64_t end = buffer.dirty.empty() ? 0 : buffer.dirty.back().end();
  if (known.zblk) {
    end = known.zblk->cls == KnownClass::kZBlk1 ? blksize_ : std::max(end, known.zblk->length);
  }
  std::vector<BlockPart> parts;
  for (const Extent& gap : gaps(buffer.dirty, end)) {
    const auto out = buffer.bytes.subspan(gap.offset, gap.length);
    if (!known.zblk) {
      zero(out);
      continue;
    }
    const Ref zblk{known.zblk->ref.oid, ClassId::of(known.zblk->cls), RefForm::kClass};
    parts.push_back({buffer.block, zblk, gap.offset, out});
  }
  if (!parts.empty()) read_blocks(objects_, blksize_, parts);
  buffer.dirty.clear();
  append_extent(buffer.dirty, 0, end);
  return end;
}

BlockWriter::Target BlockWriter::choose(const BlockBuffer& buffer, const Known& known) {
  switch (format_) {
    case BlockFormat::kZBlk0:
      return Target::kZBlk0;
    case BlockFormat::kZBlk1:
      return Target::kZBlk1;
    case BlockFormat::kAuto:
      return choose_auto(buffer, known);
    case BlockFormat::kKeep:
      break;
  }
  return known.zblk && known.zblk->cls == KnownClass::kZBlk1 ? Target::kZBlk1 : Target::kZBlk0;
}

// The end of the last byte of `ranges` in the old content that is not zero; 0 if there is none.
std::uint64_t BlockWriter::end_of_old(const Known& known, const BlockBuffer& buffer,
                                      const ExtentList& ranges) const {
  Bytes old;
  std::uint64_t piece = kFirstPiece;
  for (auto range = ranges.rbegin(); range != ranges.rend(); ++range) {
    for (std::uint64_t end = range->end(); end > range->offset;) {
      const std::uint64_t length = std::min(piece, end - range->offset);
      old.resize(length);
      read_old(known, buffer, end - length, old);
      end -= length;
      if (const std::size_t found = trimmed(old); found > 0) return end + found;
      piece = std::min(piece * 4, kLargestPiece);
    }
  }
  return 0;
}

// What choose_auto asks of a block that was changed. Outside of what is dirty both contents are the
// same, so nothing is read there but where one of them ends.
BlockWriter::Change BlockWriter::compare(const BlockBuffer& buffer, const Known& known) const {
  Change change;
  for (auto dirty = buffer.dirty.rbegin(); dirty != buffer.dirty.rend(); ++dirty) {
    const std::size_t found = trimmed(buffer.bytes.subspan(dirty->offset, dirty->length));
    if (found == 0) continue;
    change.new_end = dirty->offset + found;
    break;
  }
  if (known.zblk) {
    const std::uint64_t stored = stored_length(objects_, *known.zblk, blksize_);
    change.old_end = end_of_old(known, buffer, {{0, stored}});
    const std::uint64_t from = change.new_end;
    if (from < change.old_end) {
      const ExtentList kept =
          clipped(gaps(buffer.dirty, change.old_end), from, change.old_end - from);
      change.new_end = std::max(from, end_of_old(known, buffer, kept));
    }
  }
  const std::uint64_t common = std::min(change.old_end, change.new_end);
  Bytes old;
  for (const Extent& extent : clipped(buffer.dirty, 0, common)) {
    for (std::uint64_t at = extent.offset; at < extent.end(); at += old.size()) {
      old.resize(std::min(kLargestPiece, extent.end() - at));
      read_old(known, buffer, at, old);
      change.differences += count_differences(buffer.bytes.subspan(at, old.size()), old);
    }
  }
  return change;
}

// wendelin.core's rule. Small changes go into a ZBlk1, which grows the database by little; large
// ones and what is appended until the block is full into a ZBlk0, which is read faster.
BlockWriter::Target BlockWriter::choose_auto(const BlockBuffer& buffer, const Known& known) {
  const Change change = compare(buffer, known);
  const auto block = static_cast<std::int64_t>(buffer.block);
  const std::int64_t last = blktab_.max_key().value_or(-1);
  const bool longer = change.new_end >= change.old_end;
  const bool append_old = block == last && longer && change.differences == 0;
  const bool append_new = block == last + 1 && change.old_end == 0;
  const std::uint64_t size = change.differences + std::max(change.old_end, change.new_end) -
                             std::min(change.old_end, change.new_end);
  const bool small = 2 * size < blksize_;
  const bool filled = change.new_end == blksize_;
  if (append_new && migratable_ && migratable_->block + 1 == buffer.block) migrate();
  migratable_.reset();
  const Target target =
      small && !((append_old || append_new) && filled) ? Target::kZBlk1 : Target::kZBlk0;
  if (target == Target::kZBlk1 && block == last && known.zblk &&
      known.zblk->cls == KnownClass::kZBlk1) {
    migratable_.emplace(Migratable{buffer.block, known, buffer.dirty, {}});
    for (const Extent& extent : buffer.dirty) {
      append(migratable_->bytes, buffer.bytes.subspan(extent.offset, extent.length));
    }
  }
  return target;
}

// The block that was the last one, from ZBlk1 to ZBlk0.
void BlockWriter::migrate() {
  Bytes bytes(blksize_);
  BlockBuffer whole{migratable_->block, bytes, migratable_->dirty};
  auto from = migratable_->bytes.begin();
  for (const Extent& extent : whole.dirty) {
    const auto to = from + static_cast<std::ptrdiff_t>(extent.length);
    std::copy(from, to, bytes.begin() + static_cast<std::ptrdiff_t>(extent.offset));
    from = to;
  }
  const std::uint64_t end = fill(whole, migratable_->known);
  const ByteView content = std::span(bytes).first(end);
  const Oid oid = new_oid();
  put_in_table(migratable_->block, oid, KnownClass::kZBlk0);
  store_payload(oid, kNoTid, KnownClass::kZBlk0, content.first(trimmed(content)));
}

void BlockWriter::write(BlockBuffer& buffer, const Known& known) {
  if (choose(buffer, known) == Target::kZBlk0) {
    write_zblk0(buffer, known);
  } else {
    if (blksize_ > std::numeric_limits<std::int32_t>::max()) {
      throw Unsupported("a ZBlk1 of more than 2^31 - 1 bytes");
    }
    write_zblk1(buffer, known);
  }
}

void BlockWriter::write_zblk0(BlockBuffer& buffer, const Known& known) {
  const std::uint64_t end = fill(buffer, known);
  const auto content = buffer.bytes.first(end);
  const ByteView payload = content.first(trimmed(content));
  if (known.zblk && known.zblk->cls == KnownClass::kZBlk0) {
    store_payload(known.zblk->ref.oid, known.zblk->ref.serial, KnownClass::kZBlk0, payload);
    return;
  }
  const Oid oid = new_oid();
  store_payload(oid, kNoTid, KnownClass::kZBlk0, payload);
  put_in_table(buffer.block, oid, KnownClass::kZBlk0);
  if (known.zblk) touch(*known.zblk);
}

void BlockWriter::write_zblk1(BlockBuffer& buffer, const Known& known) {
  if (!known.zblk || known.zblk->cls != KnownClass::kZBlk1) {
    write_new_chunks(buffer, known);
    return;
  }
  const BlockObject& zblk = *known.zblk;
  const auto chunks = chunks_in(objects_, zblk.chunktab, 0, blksize_, blksize_);
  if (has_foreign_chunks(chunks)) {
    rebuild_chunks(buffer, known);
  } else if (!update_chunks(buffer, zblk, chunks)) {
    keep(known);
    return;
  }
  store_zblk1(zblk.ref.oid, zblk.ref.serial, zblk.chunktab);
}

void BlockWriter::write_new_chunks(BlockBuffer& buffer, const Known& known) {
  const Oid zblk = new_oid();
  const Oid chunktab = new_oid();
  auto table = BTreeEditor::create(chunktab, KnownClass::kIOBTree, [this] { return new_oid(); });
  set_chunks(table, buffer, fill(buffer, known));
  store_tree(table);
  store_zblk1(zblk, kNoTid, chunktab);
  put_in_table(buffer.block, zblk, KnownClass::kZBlk1);
  if (known.zblk) touch(*known.zblk);
}

// Chunks that are not where, or longer than, chunks are written. Among chunks at multiples of 4096
// only one that is followed by a gap can be too long, so that few need to be looked at.
bool BlockWriter::has_foreign_chunks(std::span<const Chunk> chunks) const {
  std::vector<Ref> doubtful;
  for (const Chunk& chunk : chunks) {
    if (chunk.offset % kChunkSize != 0) return true;
    if (chunk.limit - chunk.offset > kChunkSize) doubtful.push_back(chunk.zdata);
  }
  const auto zdata = objects_.block_objects(doubtful);
  return std::any_of(zdata.begin(), zdata.end(),
                     [](const BlockObject& z) { return z.length > kChunkSize; });
}

// All chunks anew, as the original does it rather than to mix sizes.
void BlockWriter::rebuild_chunks(BlockBuffer& buffer, const Known& known) {
  BTreeEditor table(objects_, known.zblk->chunktab, KnownClass::kIOBTree,
                    [this] { return new_oid(); });
  const std::uint64_t end = fill(buffer, known);
  table.clear();
  set_chunks(table, buffer, end);
  store_tree(table);
}

// A new ZData for each chunk of [0, upto) that is not all zero.
void BlockWriter::set_chunks(BTreeEditor& table, const BlockBuffer& buffer, std::uint64_t upto) {
  for (std::uint64_t offset = 0; offset < upto; offset += kChunkSize) {
    const auto chunk = buffer.bytes.subspan(offset, std::min(kChunkSize, upto - offset));
    const std::size_t length = trimmed(chunk);
    if (length == 0) continue;
    const Oid oid = new_oid();
    store_payload(oid, kNoTid, KnownClass::kZData, chunk.first(length));
    table.set(static_cast<std::int64_t>(offset), ref_to(oid, KnownClass::kZData));
  }
}

// Compares the chunks that are dirty, and only those, with the database. False: none differs.
bool BlockWriter::update_chunks(BlockBuffer& buffer, const BlockObject& zblk,
                                std::span<const Chunk> chunks) {
  struct Touched {
    std::uint64_t offset;
    std::uint64_t length;
    const Chunk* old;
  };
  std::vector<Touched> touched;
  std::vector<Ref> refs;
  auto old = chunks.begin();
  for (const Extent& extent : buffer.dirty) {
    std::uint64_t offset = extent.offset / kChunkSize * kChunkSize;
    if (!touched.empty() && touched.back().offset == offset) offset += kChunkSize;
    for (; offset < extent.end(); offset += kChunkSize) {
      while (old != chunks.end() && old->offset < offset) ++old;
      const bool exists = old != chunks.end() && old->offset == offset;
      touched.push_back(
          {offset, std::min(kChunkSize, blksize_ - offset), exists ? &*old : nullptr});
      if (exists) refs.push_back(old->zdata);
    }
  }

  const auto zdata = objects_.block_objects(refs);
  std::vector<std::byte> old_bytes(touched.size() * kChunkSize);  // zeros where nothing is stored
  std::vector<ReadPart> reads;
  std::size_t next = 0;
  for (std::size_t i = 0; i < touched.size(); ++i) {
    if (touched[i].old == nullptr) continue;
    const BlockObject& z = zdata[next++];
    if (z.cls != KnownClass::kZData) throw Corrupt("a chunk that is no ZData");
    check_chunk(*touched[i].old, z.length);
    objects_.read_payload(z, 0, {old_bytes.data() + i * kChunkSize, z.length}, reads);
  }
  if (!reads.empty()) storage_.read(reads);

  BTreeEditor table(objects_, zblk.chunktab, KnownClass::kIOBTree, [this] { return new_oid(); });
  bool changed = false;
  next = 0;
  for (std::size_t i = 0; i < touched.size(); ++i) {
    const Touched& chunk = touched[i];
    const BlockObject* z = chunk.old != nullptr ? &zdata[next++] : nullptr;
    const auto before = std::span<const std::byte>(old_bytes).subspan(i * kChunkSize, chunk.length);
    const auto now = buffer.bytes.subspan(chunk.offset, chunk.length);
    const ExtentList dirty = clipped(buffer.dirty, chunk.offset, chunk.length);
    std::uint64_t at = chunk.offset;
    const auto copy_old = [&](std::uint64_t upto) {
      if (upto > at) {
        std::memcpy(buffer.bytes.data() + at, before.data() + (at - chunk.offset), upto - at);
      }
    };
    for (const Extent& extent : dirty) {
      copy_old(extent.offset);
      at = extent.end();
    }
    copy_old(chunk.offset + chunk.length);
    if (equal(now, before)) continue;
    changed = true;
    const std::size_t length = trimmed(now);
    const auto key = static_cast<std::int64_t>(chunk.offset);
    if (length == 0) {
      table.erase(key);
    } else if (z != nullptr) {
      store_payload(z->ref.oid, z->ref.serial, KnownClass::kZData, now.first(length));
    } else {
      const Oid oid = new_oid();
      store_payload(oid, kNoTid, KnownClass::kZData, now.first(length));
      table.set(key, ref_to(oid, KnownClass::kZData));
    }
  }
  store_tree(table);
  return changed;
}

void BlockWriter::put_in_table(std::uint64_t block, Oid zblk, KnownClass cls) {
  blktab_.set(static_cast<std::int64_t>(block), ref_to(zblk, cls));
}

void BlockWriter::touch(const BlockObject& old) {
  if (old.cls == KnownClass::kZBlk1) {
    store_zblk1(old.ref.oid, old.ref.serial, old.chunktab);
  } else {
    store_payload(old.ref.oid, old.ref.serial, KnownClass::kZBlk0, {});
  }
}

void BlockWriter::store_payload(Oid oid, Tid base, KnownClass cls, ByteView payload) {
  PayloadEnvelope other;
  const bool usual = cls == KnownClass::kZData && payload.size() == kChunkSize;
  if (!usual) other = payload_envelope(flavour_, ClassId::of(cls), payload.size());
  const PayloadEnvelope& envelope = usual ? full_chunk_ : other;
  const ByteView parts[] = {envelope.head, payload, envelope.tail};
  sink_.store(oid, base, parts);
}

void BlockWriter::store_zblk1(Oid oid, Tid base, Oid chunktab) {
  RecordWriter out(flavour_, ClassId::of(KnownClass::kZBlk1).name());
  out.ref(chunktab, ClassId::of(KnownClass::kIOBTree).name());
  sink_.store(oid, base, out.finish());
}

void BlockWriter::store_tree(const BTreeEditor& tree) {
  for (const BTreeEditor::Store& store : tree.stores(flavour_)) {
    sink_.store(store.oid, store.base, store.record);
  }
  for (const BTreeEditor::Check& check : tree.checks()) sink_.check(check.oid, check.serial);
}

void BlockWriter::finish() { store_tree(blktab_); }

}  // namespace zbig
