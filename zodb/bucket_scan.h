// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>

#include "zodb/btree.h"
#include "zodb/bytes.h"

// A short way from the record of a bucket to its node.
//
// A commit of one page into a ZBlk1, and the first read of one, decode the whole chunk table: 512
// pairs in 9 to 17 buckets. The pickle machine makes five values of each pair, which
// decode_btree_node then takes apart; that was a quarter of the agent's time in a small commit. But
// what writes buckets writes them in one form (protocol 3, Python 3's habits or Python 2's,
// docs/formats/btree.md), and that form can be read in one pass.
//
// S1  What it returns is what decode_btree_node returns for the same record. Whatever looks unusual
//     in any way, damaged records included, is left to that one to judge.

namespace zbig {

// Nothing if the record is no bucket in the usual form.
std::optional<BTreeNode> scan_bucket(ByteView record);

}  // namespace zbig
