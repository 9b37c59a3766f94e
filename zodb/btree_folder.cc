// SPDX-License-Identifier: BSD-3-Clause

// Folders: OOBTrees with strings as keys. The grammar is that of all BTrees; keys are not compared,
// since zbig need not know how Python orders them.

#include <unordered_set>

#include "zodb/btree.h"
#include "zodb/error.h"

namespace zbig {
namespace {

class FolderWalk {
 public:
  FolderWalk(const Storage& storage, Tid at, std::size_t max_entries)
      : storage_(storage), at_(at), max_entries_(max_entries) {}

  std::vector<FolderEntry> list(Oid root) {
    to_visit_.push_back(root);
    while (!to_visit_.empty()) {
      const Oid oid = to_visit_.back();
      to_visit_.pop_back();
      try {
        visit(oid);
      } catch (const Corrupt&) {
        rethrow_with_context(describe_object(oid, at_));
      }
    }
    return std::move(entries_);
  }

 private:
  void visit(Oid oid) {
    if (!visited_.insert(oid).second) throw Corrupt("a node is in its tree twice");
    const auto record = storage_.load(oid, at_);
    if (!record) throw Corrupt("a node of a BTree does not exist");
    const ObjectRecord object = ObjectRecord::parse(record->data);
    const Value state = object.state();
    if (object.is(KnownClass::kOOBucket)) {
      list_bucket(state);
    } else if (!object.is(KnownClass::kOOBTree)) {
      throw Corrupt("it is a " + object.cls().str() + ", not a node of an OOBTree");
    } else if (const auto embedded = state.tuple(1)) {
      const auto children = (*embedded)[0].tuple(1);
      if (!children) throw Corrupt("the list of children is not one");
      list_bucket((*children)[0]);
    } else if (!state.is_none()) {
      list_children(state);
    }
  }

  void list_children(Value state) {
    const auto pair = state.tuple(2);
    if (!pair || (*pair)[0].kind() != Kind::kTuple || (*pair)[0].size() % 2 == 0)
      throw Corrupt("the state is no tree");
    const auto children = (*pair)[0].items();
    for (std::size_t i = children.size(); i-- > 0;) {  // so that the first is on top
      if (i % 2 != 0) continue;                        // a separator
      const auto ref = children[i].ref();
      if (!ref) throw Corrupt("a child is no reference into this database");
      to_visit_.push_back(ref->oid);
    }
  }

  void list_bucket(Value state) {
    if (state.kind() != Kind::kTuple || state.size() < 1 || state.size() > 2 ||
        state[0].kind() != Kind::kTuple || state[0].size() % 2 != 0)
      throw Corrupt("the state is no bucket");
    const auto items = state[0].items();
    for (std::size_t i = 0; i < items.size(); i += 2) {
      const auto key = items[i].text();
      const auto ref = items[i + 1].ref();
      if (!key || !ref) continue;
      if (entries_.size() >= max_entries_)
        throw Failed("a folder of more than " + std::to_string(max_entries_) + " entries");
      entries_.push_back({std::string(*key), ref->oid,
                          ref->form == RefForm::kOid ? std::string() : ref->cls.str()});
    }
  }

  const Storage& storage_;
  Tid at_;
  std::size_t max_entries_;
  std::vector<Oid> to_visit_;
  std::unordered_set<Oid> visited_;
  std::vector<FolderEntry> entries_;
};

}  // namespace

std::vector<FolderEntry> list_folder(const Storage& storage, Oid root, Tid at,
                                     std::size_t max_entries) {
  return FolderWalk(storage, at, max_entries).list(root);
}

}  // namespace zbig
