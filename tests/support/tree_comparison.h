// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <map>
#include <vector>

#include "zodb/btree_editor.h"

// Compares the tree that an editor made of the state `before` with what the original made of it by
// `after`: node by node, byte for byte. New objects have other oids here and there; they are
// matched by their place in the tree. Differences fail the test (GoogleTest).

namespace zbig::test {

class TreeComparison {
 public:
  TreeComparison(const Storage& storage, Tid before, Tid after, const BTreeEditor& editor);

  void compare(Oid root);

  // Nodes that were there before, and that the editor and the original stored, ascending.
  const std::vector<Oid>& stored() const { return stored_; }
  std::vector<Oid> stored_by_original() const;

 private:
  BTreeNode ours(Oid oid) const;
  BTreeNode theirs(Oid oid) const;
  void match(Oid our_oid, Oid their_oid);
  void same_record(Oid our_oid, Oid their_oid) const;

  const Storage& storage_;
  Tid before_, after_;
  std::map<Oid, Bytes> ours_;
  std::vector<Oid> stored_;
  std::map<Oid, Oid> pairs_;
};

// Is it a node of an LOBTree or IOBTree?
bool is_btree_node(const ObjectRecord& record);

}  // namespace zbig::test
