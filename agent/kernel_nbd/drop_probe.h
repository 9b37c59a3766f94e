// SPDX-License-Identifier: BSD-3-Clause
//
// Finds out how this kernel drops pages, by trying.
//
// page_drop.h relies on what the kernel does before it fails, which is behaviour and no promise. So
// an agent asks here once, before its first attach: a device of 64 KiB is attached whose server is
// a thread of this process; a page of it is mapped, changed on the server, dropped, and looked at
// again. A method passes if the mapped page is fresh, a dirty page next to it is kept and named, a
// discard really discards, and the server was sent no trim or write-zeroes that it would obey.
#pragma once

#include "agent/kernel_nbd/page_drop.h"
#include "agent/kernel_nbd/worker.h"

namespace zbig {

struct DropProbe {
  DropMethod writable = DropMethod::kNone;   // for a writable device
  DropMethod read_only = DropMethod::kNone;  // for one attached read-only
};

// Throws what NbdNetlink throws; a method that fails in any way is only not chosen. Leaves nothing
// behind.
DropProbe probe_drop_methods(Deadline deadline);

// One method alone.
bool drop_method_works(DropMethod method, bool read_only, Deadline deadline);

}  // namespace zbig
