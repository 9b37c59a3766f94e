// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>

#include <sys/types.h>

// What is done to the device through its path, as any program would do it. All of it makes the
// kernel ask the process that serves the device, and waits for the answer: for worker processes
// only (kernel_cache.h, K1).
//
// `device` is the st_dev of the mount: if somebody unmounts the device, the path is an ordinary
// file again, and truncating or syncing that would succeed and mean nothing.

namespace zbig::fuse {

dev_t device_of(const std::string& path);

// Makes the kernel take the device's size (device_file.h, D1). `size` must be what the serving
// process replies. Throws Failed.
void make_kernel_take_size(const std::string& path, dev_t device, std::uint64_t size);

// Writes the kernel's dirty pages to the server and has the server flush. Throws Failed, NoSpace.
void sync_file(const std::string& path, dev_t device);

// Waits for writes of pages to the server that have begun, and begins and waits for those of dirty
// ones. Closing a file does that, without a flush. (Dropping a page does not wait for its write in
// kernels before 6.16, which send a copy of the page.) Throws what a write failed with.
void wait_for_writes(const std::string& path, dev_t device);

// How far the kernel reads ahead, and that this device may have as many dirty pages as any other
// disk (FUSE file systems may have 1 % of that by default). Needs root; without it, nothing is
// changed.
void tune_kernel(dev_t device, unsigned read_ahead_kb);

}  // namespace zbig::fuse
