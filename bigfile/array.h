// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "bigfile/volume.h"
#include "zodb/pickle_value.h"
#include "zodb/pickle_writer.h"

// ZBigArray: a numpy array's shape and item type over a ZBigFile.
//
// Its state is a pair of dicts, the attributes (_dtype, _shape, _order, _stridev) and the slots
// (zfile). An item type is pickled as a call of numpy.dtype with a short code, and a state behind
// it with byte order and, where the code does not say it, the size.

namespace zbig {

struct ArrayState {
  ArrayInfo info;
  PersistentRef zfile;
};
// From the state of a ZBigArray. Throws Corrupt, Unsupported (more than 2^63 - 1 bytes).
ArrayState decode_array(const Value& state);

// Completes `info` (its dtype as numpy spells it, nbytes). Throws Invalid.
ArrayInfo checked_array(ArrayInfo info);
// The record of a ZBigArray over `zfile`, as Python writes it. `info` is a checked one.
Bytes encode_array(const ArrayInfo& info, Oid zfile, Flavour flavour);

}  // namespace zbig
