// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/chunk_table.h"

#include <algorithm>

#include "zodb/error.h"

namespace zbig {
namespace {

// The last key before `key`, which is in no leaf but those to the left of `leaf`.
std::optional<std::pair<std::int64_t, Ref>> last_before(const BTree& tree, Leaf leaf) {
  while (leaf.first != kMinKey) {
    leaf = tree.leaf(leaf.first - 1);
    const BTreeNode& node = leaf.node->node;
    if (!node.keys.empty()) return std::pair(node.keys.back(), node.refs.back());
  }
  return std::nullopt;
}

Chunk make_chunk(std::int64_t key, const Ref& zdata, std::uint64_t blksize) {
  if (key < 0 || static_cast<std::uint64_t>(key) > blksize) {
    throw Corrupt("a chunk at offset " + std::to_string(key) + " of a block of " +
                  std::to_string(blksize) + " bytes");
  }
  return {static_cast<std::uint64_t>(key), blksize, zdata};
}

}  // namespace

std::vector<Chunk> chunks_in(const Objects& objects, Oid chunktab, std::uint64_t from,
                             std::uint64_t to, std::uint64_t blksize) {
  const BTree tree(objects, chunktab, KnownClass::kIOBTree);
  const bool whole = from == 0 && to == blksize;
  const std::int64_t first = whole ? kMinKey : static_cast<std::int64_t>(from);
  const std::int64_t last = whole ? kMaxKey : static_cast<std::int64_t>(to - 1);
  std::vector<Chunk> chunks;
  tree.for_each(first, last, [&](std::int64_t key, const Ref& zdata) {
    chunks.push_back(make_chunk(key, zdata, blksize));
    return true;
  });
  if (!whole && (chunks.empty() || chunks.front().offset != from)) {
    const Leaf leaf = tree.leaf(first);
    const BTreeNode& node = leaf.node->node;
    const std::size_t place = node.lower_bound(first);
    if (place > 0) {
      chunks.insert(chunks.begin(),
                    make_chunk(node.keys[place - 1], node.refs[place - 1], blksize));
    } else if (const auto before = last_before(tree, leaf)) {
      chunks.insert(chunks.begin(), make_chunk(before->first, before->second, blksize));
    }
  }
  for (std::size_t i = 0; i + 1 < chunks.size(); ++i) chunks[i].limit = chunks[i + 1].offset;
  return chunks;
}

std::uint64_t stored_length(const Objects& objects, const BlockObject& zblk,
                            std::uint64_t blksize) {
  if (zblk.cls != KnownClass::kZBlk1) return std::min(zblk.length, blksize);
  const BTree tree(objects, zblk.chunktab, KnownClass::kIOBTree);
  const auto last = tree.max_key();
  if (!last || *last < 0) return 0;
  const auto zdata = tree.find(*last);
  return std::min(static_cast<std::uint64_t>(*last) + objects.block_object(*zdata).length, blksize);
}

void check_chunk(const Chunk& chunk, std::uint64_t length) {
  if (length <= chunk.limit - chunk.offset) return;
  throw Corrupt("chunk " + chunk.zdata.oid.hex() + " of " + std::to_string(length) +
                " bytes at offset " + std::to_string(chunk.offset) + " reaches past " +
                std::to_string(chunk.limit) + ", where the next chunk begins or the block ends");
}

}  // namespace zbig
