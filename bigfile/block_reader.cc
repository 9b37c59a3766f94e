// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/block_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "bigfile/chunk_table.h"
#include "zodb/error.h"
#include "zodb/payload.h"

namespace zbig {
namespace {

void zero(std::span<std::byte> out) {
  if (!out.empty()) std::memset(out.data(), 0, out.size());
}

// A chunk, and the part of a block that it may have bytes for.
struct ChunkPart {
  Chunk chunk;
  const BlockPart* part;

  std::uint64_t from() const { return part->offset; }
  std::uint64_t to() const { return part->offset + part->out.size(); }
  std::span<std::byte> out(std::uint64_t begin, std::uint64_t end) const {
    return part->out.subspan(begin - part->offset, end - begin);
  }
};

[[noreturn]] void rethrow_for_block(const BlockPart& part, Tid at) {
  rethrow_with_context("block " + std::to_string(part.block) + ", " +
                       describe_object(part.zblk.oid, at));
}

class Reader {
 public:
  Reader(const Objects& objects, std::uint64_t blksize) : objects_(objects), blksize_(blksize) {}

  void read(std::span<const BlockPart> parts) {
    std::vector<Ref> refs;
    refs.reserve(parts.size());
    for (const BlockPart& part : parts) refs.push_back(part.zblk);
    const std::vector<BlockObject> zblks =
        block_objects(refs, [&](std::size_t i) -> const BlockPart& { return parts[i]; });
    announce_tables(zblks);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      try {
        if (zblks[i].cls == KnownClass::kZBlk1) {
          add_chunks(parts[i], zblks[i].chunktab);
        } else if (zblks[i].cls == KnownClass::kZBlk0) {
          add_zblk0(parts[i], zblks[i]);
        } else {
          throw Corrupt("a ZData where a block was expected");
        }
      } catch (const Error&) {
        rethrow_for_block(parts[i], objects_.at());
      }
    }
    read_chunks();
    if (!reads_.empty()) objects_.storage().read(reads_);
  }

 private:
  // What `refs` are. If one of them can't be read, the batch can't: then one after the other, so
  // that the error names the block (`part_of(i)`) and the place of the one that is broken.
  template <class PartOf>
  std::vector<BlockObject> block_objects(std::span<const Ref> refs, PartOf part_of) const {
    try {
      return objects_.block_objects(refs);
    } catch (const Error&) {
      for (std::size_t i = 0; i < refs.size(); ++i) {
        try {
          objects_.block_objects(refs.subspan(i, 1));
        } catch (const Error&) {
          rethrow_with_context("block " + std::to_string(part_of(i).block) + place(refs[i].oid));
        }
      }
      throw;
    }
  }

  std::string place(Oid oid) const {
    try {
      const auto ref = objects_.storage().locate(oid, objects_.at());
      return ref ? ", " + objects_.storage().place(*ref) : "";
    } catch (const Error&) {
      return "";  // the first error is the one to tell
    }
  }

  // The roots of all tables in one batch, then all nodes below them in another.
  void announce_tables(std::span<const BlockObject> zblks) const {
    std::vector<Oid> roots;
    for (const BlockObject& zblk : zblks) {
      if (zblk.cls == KnownClass::kZBlk1) roots.push_back(zblk.chunktab);
    }
    if (roots.size() < 2) return;  // a walk announces its own nodes
    objects_.want(roots);
    std::vector<Oid> below;
    for (const Oid root : roots) {
      const auto node = objects_.node(root);
      if (node->node.shape != BTreeNode::Shape::kTree) continue;
      for (const Ref& child : node->node.refs) below.push_back(child.oid);
    }
    objects_.want(below);
  }

  void add_zblk0(const BlockPart& part, const BlockObject& zblk) {
    if (zblk.length > blksize_) {
      throw Corrupt("it holds " + std::to_string(zblk.length) + " bytes, and blocks are " +
                    std::to_string(blksize_));
    }
    const std::uint64_t stored = zblk.length > part.offset ? zblk.length - part.offset : 0;
    const std::size_t count = std::min<std::uint64_t>(stored, part.out.size());
    objects_.read_payload(zblk, part.offset, part.out.first(count), reads_);
    zero(part.out.subspan(count));
  }

  void add_chunks(const BlockPart& part, Oid chunktab) {
    const std::uint64_t to = part.offset + part.out.size();
    const std::vector<Chunk> chunks = chunks_in(objects_, chunktab, part.offset, to, blksize_);
    // Each chunk zeroes what lies between it and the next one; nobody else does this one.
    const std::uint64_t first = chunks.empty() ? to : std::min(to, chunks.front().offset);
    if (first > part.offset) zero(part.out.first(first - part.offset));
    for (const Chunk& chunk : chunks) chunks_.push_back({chunk, &part});
  }

  void read_chunks() {
    const std::vector<const ChunkPart*> rest = read_as_guessed();
    if (rest.empty()) return;
    std::vector<Ref> refs;
    refs.reserve(rest.size());
    for (const ChunkPart* chunk : rest) refs.push_back(chunk->chunk.zdata);
    const std::vector<BlockObject> zdata =
        block_objects(refs, [&](std::size_t i) -> const BlockPart& { return *rest[i]->part; });
    for (std::size_t i = 0; i < zdata.size(); ++i) add_chunk(*rest[i], zdata[i]);
  }

  void add_chunk(const ChunkPart& chunk, const BlockObject& zdata) {
    const Chunk& c = chunk.chunk;
    check(chunk, zdata.cls, zdata.length);
    const std::uint64_t begin = std::max(c.offset, chunk.from());
    const std::uint64_t end = std::min(c.offset + zdata.length, chunk.to());
    if (begin < end) {
      objects_.read_payload(zdata, begin - c.offset, chunk.out(begin, end), reads_);
    }
    zero_behind(chunk, zdata.length);
  }

  void check(const ChunkPart& chunk, KnownClass cls, std::uint64_t length) const {
    try {
      if (cls != KnownClass::kZData) throw Corrupt("a chunk that is no ZData");
      check_chunk(chunk.chunk, length);
    } catch (const Error&) {
      rethrow_for_block(*chunk.part, objects_.at());
    }
  }

  static void zero_behind(const ChunkPart& chunk, std::uint64_t length) {
    const std::uint64_t begin = std::max(chunk.chunk.offset + length, chunk.from());
    const std::uint64_t end = std::min(chunk.chunk.limit, chunk.to());
    if (begin < end) zero(chunk.out(begin, end));
  }

  // Reads those chunks for which the guess was right; returns the others.
  std::vector<const ChunkPart*> read_as_guessed() {
    const std::uint32_t guess = objects_.caches().zdata_offset.load(std::memory_order_relaxed);
    std::vector<const ChunkPart*> rest;
    std::vector<const ChunkPart*> guessed;
    std::vector<DirectRead> reads;
    reads.reserve(chunks_.size());
    std::vector<std::byte> heads(chunks_.size() * guess);
    for (const ChunkPart& chunk : chunks_) {
      const Chunk& c = chunk.chunk;
      const std::uint64_t begin = std::max(c.offset, chunk.from());
      const std::uint64_t end = std::min(c.limit, chunk.to());
      if (guess == 0 || guess > kPayloadHeadSize || begin >= end) {
        rest.push_back(&chunk);
        continue;
      }
      DirectRead direct;
      direct.oid = c.zdata.oid;
      direct.head = std::span(heads).subspan(reads.size() * guess, guess);
      direct.offset = guess + (begin - c.offset);
      direct.out = chunk.out(begin, end);
      reads.push_back(direct);
      guessed.push_back(&chunk);
    }
    if (reads.empty()) return rest;
    try {
      objects_.storage().read_direct(reads, objects_.at());
    } catch (const Corrupt&) {
      guessed.insert(guessed.end(), rest.begin(), rest.end());
      return guessed;  // the long way tells which block is broken
    }
    for (std::size_t i = 0; i < reads.size(); ++i) {
      const DirectRead& direct = reads[i];
      std::optional<PayloadHead> head;
      if (direct.ref) head = payload_head(direct.head.first(direct.head_size), direct.ref->size);
      if (!head || head->cls.known() != KnownClass::kZData || head->offset != guess) {
        rest.push_back(guessed[i]);
        continue;
      }
      check(*guessed[i], head->cls.known(), head->length);
      zero_behind(*guessed[i], head->length);
    }
    return rest;
  }

  const Objects& objects_;
  const std::uint64_t blksize_;
  std::vector<ChunkPart> chunks_;
  std::vector<ReadPart> reads_;
};

}  // namespace

void read_blocks(const Objects& objects, std::uint64_t blksize, std::span<const BlockPart> parts) {
  Reader(objects, blksize).read(parts);
}

}  // namespace zbig
