// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "zodb/btree.h"

// RegularBucket: a bucket of a chunk table in a tenth of its memory.
//
// A volume of 5 GiB of ZBlk1 has 1.3 million chunks, listed in 43000 buckets of a kilobyte each
// when decoded. But chunks are written one after the other: their offsets grow by one step, and
// their objects were new together, so their oids follow one another, with at most one jump over
// what else was new between them (the bucket itself, when it is split off). Such a bucket is said
// with its first pair, the step, the jump and the count. One that is not so is kept as it is.

namespace zbig {

class RegularBucket {
 public:
  // Nothing if the node is no bucket, or not so regular.
  static std::optional<RegularBucket> from(const LoadedNode& loaded);
  // The very node that it was made from.
  std::shared_ptr<const LoadedNode> node(Oid oid) const;

  RegularBucket() = default;  // for caches; not to be asked for its node

 private:
  Tid serial_;
  std::int64_t first_key_ = 0;
  std::int64_t step_ = 0;
  Ref first_;
  Oid after_jump_;  // the oid at jump_; they count on from it
  std::uint32_t jump_ = 0;
  std::optional<Ref> next_;
  std::optional<ClassId> cls_;
  std::uint32_t count_ = 0;
};

}  // namespace zbig
