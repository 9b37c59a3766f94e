// SPDX-License-Identifier: BSD-3-Clause

#include "bigfile/survey.h"

#include <algorithm>

#include "zodb/btree.h"
#include "zodb/error.h"

namespace zbig {
namespace {

// Objects located at once: enough to hide a round trip, little enough to forget.
constexpr std::size_t kBatch = 1024;

class Surveyor {
 public:
  Surveyor(const Storage& storage, Tid at, const SurveyProgress& progress)
      : storage_(storage), at_(at), progress_(progress) {}

  Survey walk(const Volume& volume) {
    note(object(volume.oid).serial);
    note(object(volume.zfile).serial);
    walk_tree(volume.blktab, KnownClass::kLOBTree, [&](const Ref& block) { add_block(block); });
    flush_blocks();
    return result_;
  }

 private:
  using OnValue = std::function<void(const Ref&)>;

  RecordRef object(Oid oid) const {
    const auto ref = storage_.locate(oid, at_);
    if (!ref) throw Corrupt(describe_object(oid, at_) + " is missing");
    return *ref;
  }

  void note(Tid serial) { result_.tid = std::max(result_.tid, serial); }

  // Every value of a tree, noting the serials of its nodes on the way.
  void walk_tree(Oid root, KnownClass cls, const OnValue& on_value) {
    const StorageNodeSource nodes(storage_, at_);
    BTree(nodes, root, cls).for_each_leaf(kMinKey, kMaxKey, [&](const Leaf& leaf) {
      for (const auto& node : leaf.path) note(node->serial);
      note(leaf.node->serial);
      for (const Ref& value : leaf.node->node.refs) on_value(value);
      return true;
    });
  }

  void add_block(const Ref& block) {
    blocks_.push_back(block);
    if (blocks_.size() == kBatch) flush_blocks();
  }

  void flush_blocks() {
    std::vector<Oid> oids;
    for (const Ref& block : blocks_) oids.push_back(block.oid);
    const std::vector<RecordRef> records = locate_all(oids);
    result_.blocks += records.size();
    for (std::size_t i = 0; i < records.size(); ++i) {
      add_record(records[i]);
      // The class of a reference and of its record differ at most in spelling.
      const bool chunked = blocks_[i].cls ? blocks_[i].cls->known() == KnownClass::kZBlk1
                                          : is_chunked(blocks_[i].oid);
      ++(chunked ? result_.zblk1 : result_.zblk0);
      if (chunked) add_chunks(blocks_[i].oid);
    }
    blocks_.clear();
    if (progress_) progress_(result_.blocks);
  }

  bool is_chunked(Oid oid) const {
    const auto block = load_object(storage_, oid, at_);
    return block && block->record.is(KnownClass::kZBlk1);
  }

  void add_chunks(Oid zblk1) {
    const auto block = load_object(storage_, zblk1, at_);
    const auto table = block ? block->record.state().ref() : std::nullopt;
    if (!table) throw Corrupt(describe_object(zblk1, at_) + ": no reference to a chunk table");
    std::vector<Oid> chunks;
    const auto flush = [&] {
      for (const RecordRef& chunk : locate_all(chunks)) add_record(chunk);
      result_.chunks += chunks.size();
      chunks.clear();
    };
    walk_tree(table->oid, KnownClass::kIOBTree, [&](const Ref& chunk) {
      chunks.push_back(chunk.oid);
      if (chunks.size() == kBatch) flush();
    });
    flush();
  }

  void add_record(const RecordRef& record) {
    result_.stored_bytes += record.size;
    note(record.serial);
  }

  std::vector<RecordRef> locate_all(const std::vector<Oid>& oids) const {
    std::vector<std::optional<RecordRef>> found(oids.size());
    storage_.locate(oids, at_, found);
    std::vector<RecordRef> records;
    records.reserve(oids.size());
    for (std::size_t i = 0; i < oids.size(); ++i) {
      if (!found[i]) throw Corrupt(describe_object(oids[i], at_) + " is missing");
      records.push_back(*found[i]);
    }
    return records;
  }

  const Storage& storage_;
  Tid at_;
  const SurveyProgress& progress_;
  std::vector<Ref> blocks_;
  Survey result_;
};

}  // namespace

Survey survey(const Storage& storage, const Volume& volume, Tid at,
              const SurveyProgress& progress) {
  return Surveyor(storage, at, progress).walk(volume);
}

}  // namespace zbig
