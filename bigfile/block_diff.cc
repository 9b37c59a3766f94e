// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/block_diff.h"

#include <algorithm>
#include <map>
#include <utility>

#include "zodb/error.h"
#include "zodb/record.h"

namespace zbig {
namespace {

// Leaves, or objects, brought in one batch.
constexpr std::size_t kBatch = 512;

// Every node of a chunk table, and every ZData in it.
template <class Visit>
void visit_table(const Objects& objects, Oid chunktab, const Visit& visit) {
  const BTree tree(objects, chunktab, KnownClass::kIOBTree);
  tree.for_each_leaf(kMinKey, kMaxKey, [&](const Leaf& leaf) {
    for (const auto& node : leaf.path) visit(node->oid, node->serial);
    visit(leaf.node->oid, leaf.node->serial);
    for (const Ref& zdata : leaf.node->node.refs) visit(zdata.oid, kNoTid);
    return true;
  });
}

}  // namespace

BlockDiff::BlockDiff(const Storage& storage, const Volume& volume, Tid from, Tid to,
                     std::span<const Oid> changed)
    : volume_(volume),
      changed_(changed),
      before_caches_(from),
      after_caches_(to),
      before_(storage, from, before_caches_, volume.blksize),
      after_(storage, to, after_caches_, volume.blksize) {}

bool BlockDiff::is_changed(Oid oid) const {
  return std::binary_search(changed_.begin(), changed_.end(), oid);
}

std::vector<BlockDelta> BlockDiff::blocks() {
  pair_up();
  add_changed_zblks();
  add_unexplained();
  std::sort(pairs_.begin(), pairs_.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<BlockDelta> deltas;
  for (const auto& [key, pair] : pairs_) {
    if (key < 0) throw Corrupt(volume_.path + ": a block has the number " + std::to_string(key));
    try {
      deltas.push_back(delta_of(key, pair));
    } catch (const Error&) {
      rethrow_with_context(volume_.path + ", block " + std::to_string(key));
    }
  }
  return deltas;
}

// Walks inner nodes only. They are known to be such by the class in the reference to them, but for
// references that give no class, which are followed to see.
std::vector<BlockDiff::Slot> BlockDiff::slots(const Objects& objects) const {
  std::vector<Slot> leaves;
  std::vector<Slot> level{{volume_.blktab, kMinKey, kMaxKey}};
  for (std::size_t depth = 0; !level.empty(); ++depth) {
    if (depth > BTree::kMaxDepth) {
      throw Corrupt(describe_object(volume_.blktab, objects.at()) + ": a BTree of too many levels");
    }
    std::vector<Oid> oids;
    oids.reserve(level.size());
    for (const Slot& slot : level) oids.push_back(slot.oid);
    objects.want(oids);
    std::vector<Slot> next;
    for (const Slot& slot : level) {
      const auto loaded = objects.node(slot.oid);
      const BTreeNode& node = loaded->node;
      if (node.shape != BTreeNode::Shape::kTree) {
        leaves.push_back(slot);
        continue;
      }
      for (std::size_t i = 0; i < node.refs.size(); ++i) {
        Slot child{node.refs[i].oid, slot.first, slot.last};
        if (i > 0) child.first = node.keys[i - 1];
        if (i < node.keys.size()) child.last = node.keys[i] - 1;
        if (child.first < slot.first || child.last > slot.last || child.first > child.last) {
          throw Corrupt(describe_object(slot.oid, objects.at()) +
                        ": a separator out of the range of its node");
        }
        const auto& cls = node.refs[i].cls;
        const bool leaf = cls && cls->known() == KnownClass::kLOBucket;
        (leaf ? leaves : next).push_back(child);
      }
    }
    level = std::move(next);
  }
  std::sort(leaves.begin(), leaves.end(),
            [](const Slot& a, const Slot& b) { return a.first < b.first; });
  return leaves;
}

template <class Visit>
void BlockDiff::visit_leaves(const Objects& objects, std::span<const Slot> slots,
                             const Visit& visit) const {
  for (std::size_t at = 0; at < slots.size(); at += kBatch) {
    const auto some = slots.subspan(at, std::min(kBatch, slots.size() - at));
    std::vector<Oid> oids;
    oids.reserve(some.size());
    for (const Slot& slot : some) oids.push_back(slot.oid);
    objects.want(oids);
    for (const Slot& slot : some) {
      const auto loaded = objects.node(slot.oid);
      const BTreeNode& node = loaded->node;
      if (!node.is_leaf() && node.shape != BTreeNode::Shape::kEmpty) {
        throw Corrupt(describe_object(slot.oid, objects.at()) +
                      ": a tree where a bucket should be");
      }
      if (!node.keys.empty() && (node.keys.front() < slot.first || node.keys.back() > slot.last)) {
        throw Corrupt(describe_object(slot.oid, objects.at()) +
                      ": a key out of the range of its bucket");
      }
      for (std::size_t i = 0; i < node.keys.size(); ++i) {
        visit(node.keys[i], Entry{node.refs[i], loaded->serial});
      }
    }
  }
}

// (a): blocks whose entries differ. Leaves that are the same in both trees are put aside; the rest
// covers the same keys on both sides.
void BlockDiff::pair_up() {
  const std::vector<Slot> before = slots(before_);
  const std::vector<Slot> after = slots(after_);
  std::vector<Slot> only_before;
  std::vector<Slot> only_after;
  auto b = before.begin();
  auto a = after.begin();
  while (b != before.end() || a != after.end()) {
    if (b != before.end() && a != after.end() && *b == *a && !is_changed(b->oid)) {
      same_slots_.push_back(*a);
      ++b, ++a;
    } else if (a == after.end() || (b != before.end() && b->first <= a->first)) {
      only_before.push_back(*b++);
    } else {
      only_after.push_back(*a++);
    }
  }
  std::map<std::int64_t, Pair> pairs;
  visit_leaves(before_, only_before,
               [&](std::int64_t key, Entry entry) { pairs[key].before = entry; });
  visit_leaves(after_, only_after,
               [&](std::int64_t key, Entry entry) { pairs[key].after = entry; });
  for (const auto& [key, pair] : pairs) {
    const bool same = pair.before && pair.after && pair.before->zblk.oid == pair.after->zblk.oid;
    if (same && !is_changed(pair.after->zblk.oid)) continue;
    pairs_.emplace_back(key, pair);
    paired_.insert(key);
  }
}

// (b), in the leaves that are the same.
void BlockDiff::add_changed_zblks() {
  if (changed_.empty()) return;
  visit_leaves(after_, same_slots_, [&](std::int64_t key, const Entry& entry) {
    if (!is_changed(entry.zblk.oid)) return;
    pairs_.emplace_back(key, Pair{entry, entry});
    paired_.insert(key);
  });
}

void BlockDiff::mark_table(const Objects& objects, Oid zblk1) {
  if (!objects.storage().locate(zblk1, objects.at())) return;
  const BlockObject object = objects.block_object({zblk1, std::nullopt, RefForm::kOid});
  explained_.insert(zblk1);
  if (object.cls != KnownClass::kZBlk1) return;
  visit_table(objects, object.chunktab, [&](Oid oid, Tid) { explained_.insert(oid); });
}

// Those of D that are below some ZBlk1, but not below one in D.
std::vector<Oid> BlockDiff::unexplained() {
  // Nodes of the block table are no part of any ZBlk1; most of D is explained by this volume.
  for (const auto& [key, pair] : pairs_) {
    if (pair.before) mark_table(before_, pair.before->zblk.oid);
    if (pair.after) mark_table(after_, pair.after->zblk.oid);
  }
  std::vector<Oid> below;
  std::vector<Oid> zblk1s;
  for (std::size_t at = 0; at < changed_.size(); at += kBatch) {
    std::vector<Oid> oids;
    for (const Oid oid : changed_.subspan(at, std::min(kBatch, changed_.size() - at))) {
      if (!explained_.contains(oid)) oids.push_back(oid);
    }
    const auto classes = after_.classes(oids);
    for (std::size_t i = 0; i < oids.size(); ++i) {
      if (!classes[i]) continue;
      if (*classes[i] == KnownClass::kZBlk1) {
        zblk1s.push_back(oids[i]);
      } else if (*classes[i] == KnownClass::kZData || *classes[i] == KnownClass::kIOBTree ||
                 *classes[i] == KnownClass::kIOBucket) {
        below.push_back(oids[i]);
      }
    }
  }
  if (below.empty()) return below;
  for (const Oid zblk1 : zblk1s) {  // of other volumes
    mark_table(before_, zblk1);
    mark_table(after_, zblk1);
  }
  std::erase_if(below, [&](Oid oid) { return explained_.contains(oid); });
  return below;
}

// (c): every other ZBlk1 of the volume, if it must be.
void BlockDiff::add_unexplained() {
  if (changed_.empty() || unexplained().empty()) return;
  const auto leaves = slots(after_);
  visit_leaves(after_, leaves, [&](std::int64_t key, const Entry& entry) {
    if (paired_.contains(key)) return;
    if (entry.zblk.cls && entry.zblk.cls->known() != KnownClass::kZBlk1) return;
    const BlockObject object = after_.block_object(entry.zblk);
    if (object.cls != KnownClass::kZBlk1) return;
    bool touched = false;
    // The ZBlk1 is not in D, so both states have the same root, and a node that one state has and
    // the other has not is below a node that is in D and in both.
    visit_table(after_, object.chunktab,
                [&](Oid oid, Tid) { touched = touched || is_changed(oid); });
    if (touched) pairs_.emplace_back(key, Pair{entry, entry});
  });
}

// Of all nodes that lead to where `key` is, or would be.
Tid BlockDiff::newest_node(std::int64_t key) const {
  const Leaf leaf = BTree(after_, volume_.blktab, KnownClass::kLOBTree).leaf(key);
  Tid newest = leaf.node->serial;
  for (const auto& node : leaf.path) newest = std::max(newest, node->serial);
  return newest;
}

BlockDelta BlockDiff::delta_of(std::int64_t key, const Pair& pair) const {
  BlockDelta delta;
  delta.block = static_cast<std::uint64_t>(key);
  if (pair.before) delta.before = pair.before->zblk;
  if (pair.after) delta.after = pair.after->zblk;
  const Tid from = before_.at();

  if (pair.before && pair.after && pair.before->zblk.oid == pair.after->zblk.oid) {
    const BlockObject before = before_.block_object(pair.before->zblk);
    const BlockObject after = after_.block_object(pair.after->zblk);
    delta.tid = after.ref.serial;
    if (before.cls == KnownClass::kZBlk1 && after.cls == KnownClass::kZBlk1) {
      compare_chunks(delta, before.chunktab, after.chunktab);
      return delta;
    }
  } else if (pair.after) {
    // A new ZBlk is stored together with the entry that leads to it. One from before `from` came
    // back by an undo, say.
    delta.tid = after_.block_object(pair.after->zblk).ref.serial;
    if (delta.tid <= from) delta.tid = std::max(pair.after->leaf_serial, newest_node(key));
  } else {
    delta.tid = newest_node(key);
  }
  std::uint64_t length = 0;
  if (pair.before)
    length = std::max(
        length, stored_length(before_, before_.block_object(pair.before->zblk), volume_.blksize));
  if (pair.after)
    length = std::max(
        length, stored_length(after_, after_.block_object(pair.after->zblk), volume_.blksize));
  append_extent(delta.extents, 0, length);
  return delta;
}

// Chunks that are in one table only, or are another object, or are in D.
void BlockDiff::compare_chunks(BlockDelta& delta, Oid before, Oid after) const {
  const std::uint64_t blksize = volume_.blksize;
  const auto old_chunks = chunks_in(before_, before, 0, blksize, blksize);
  const auto new_chunks = chunks_in(after_, after, 0, blksize, blksize);
  std::vector<const Chunk*> old_changed;
  std::vector<const Chunk*> new_changed;
  auto o = old_chunks.begin();
  auto n = new_chunks.begin();
  while (o != old_chunks.end() || n != new_chunks.end()) {
    if (n == new_chunks.end() || (o != old_chunks.end() && o->offset < n->offset)) {
      old_changed.push_back(&*o++);
    } else if (o == old_chunks.end() || n->offset < o->offset) {
      new_changed.push_back(&*n++);
    } else {
      if (o->zdata.oid != n->zdata.oid || is_changed(n->zdata.oid)) {
        old_changed.push_back(&*o);
        new_changed.push_back(&*n);
      }
      ++o, ++n;
    }
  }
  std::vector<Extent> extents;
  const auto add = [&](const Objects& objects, const std::vector<const Chunk*>& chunks) {
    std::vector<Ref> refs;
    refs.reserve(chunks.size());
    for (const Chunk* chunk : chunks) refs.push_back(chunk->zdata);
    const auto zdata = objects.block_objects(refs);
    for (std::size_t i = 0; i < chunks.size(); ++i) {
      extents.push_back(
          {chunks[i]->offset, std::min(zdata[i].length, blksize - chunks[i]->offset)});
      if (&objects == &after_) delta.tid = std::max(delta.tid, zdata[i].ref.serial);
    }
  };
  add(before_, old_changed);
  add(after_, new_changed);
  delta.extents = normalised(std::move(extents));
  visit_table(after_, after, [&](Oid, Tid serial) { delta.tid = std::max(delta.tid, serial); });
}

}  // namespace zbig
