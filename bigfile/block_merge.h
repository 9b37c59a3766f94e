// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>

#include "bigfile/block_buffer.h"
#include "bigfile/view.h"

// BlockMerge: what of a block to commit where another client committed to the same block.
//
// Three states of a page of 4 KiB count: as it was when this client began (base), as the others
// left it (head), and as it is here (own).
//
//   base == head            nobody else changed the page: own is committed
//   own == head             both wrote the same: nothing is to be done
//   own == base             written here with the bytes that it had, which is no change (rule 5 of
//                           docs/architecture.md): the others' page stays
//   all three differ        both changed it: a conflict, for which of the two is wanted, or what of
//                           each, nobody can know but a person
//
// The page is the unit: of one that both changed nothing is merged, even where other bytes of it
// were changed, so no page is made that neither of them has written. A page does not straddle
// blocks: only for volumes whose block size is a multiple of a page is there a merge at all.

namespace zbig {

class BlockMerge {
 public:
  static bool possible(const Volume& volume) { return volume.blksize % kPageSize == 0; }

  // The same volume at the two tids. Throws NotFound, Corrupt, Unavailable, as do its calls.
  BlockMerge(const Storage& storage, const Volume& at_base, Tid base, const Volume& at_head,
             Tid head);

  struct Pages {
    ExtentList own;   // to be committed, over the head's bytes
    ExtentList both;  // changed here and by others; as offsets of the volume
  };
  // `buffer.bytes` are own, where they are dirty.
  Pages merge(const BlockBuffer& buffer) const;

 private:
  const std::uint64_t blksize_;
  const std::shared_ptr<const View> base_;
  const std::shared_ptr<const View> head_;
};

}  // namespace zbig
