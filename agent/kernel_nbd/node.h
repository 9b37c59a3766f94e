// SPDX-License-Identifier: BSD-3-Clause
//
// Names of a kernel device: its node /dev/nbdX, the link /dev/zbig/NAME, and what udev tells of it.
//
// With udev, the node comes from devtmpfs and the link from udev/59-zbig.rules. The rule finds name
// and properties (volume, oid, dtype, shape) in a file that is published before the device is
// attached, since the kernel chooses the index and its event comes before anybody knows it. Without
// udev (a container, an initramfs) node and link are made here.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agent/kernel_nbd/worker.h"

namespace zbig {

// 1 to 64 of A-Z a-z 0-9 . _ - + = @ and not beginning with a dot: what udev keeps as it is in
// a link's name.
bool valid_link_name(const std::string& name);

// A text file of /sys/block/nbdX, without its newline; nothing if it is not there. Never waits.
std::optional<std::string> sysfs_read(std::uint32_t index, const std::string& file);
void sysfs_write(std::uint32_t index, const std::string& file, const std::string& value);

// True from attach until the last program has let go after detach.
bool sysfs_attached(std::uint32_t index);

// The index of the device that was attached with this identifier.
std::optional<std::uint32_t> sysfs_find(const std::string& identifier);

// The partitions the kernel made of it, by name.
std::vector<std::string> sysfs_partitions(std::uint32_t index);

// True if a connection that knew write-zeroes has had this index before (Linux 6.12): the limit
// outlives it.
bool sysfs_remembers_write_zeroes(std::uint32_t index);

// Indices that are not attached and remember nothing, and a few that do not exist yet.
std::vector<std::uint32_t> sysfs_unspoilt_indices();

std::string node_path(std::uint32_t index);
// 7 of "nbd7"; nothing of "nbd7p1" or "loop0".
std::optional<std::uint32_t> nbd_index_of(const std::string& name);

// Waits for /dev/nbdX, and makes it where nobody else does. Failed: something else has that name.
void ensure_node(std::uint32_t index, Deadline deadline);

struct UdevProperties {
  std::string name;                         // of the device; a link /dev/zbig/NAME is made
  std::map<std::string, std::string> more;  // ZBIG_VOLUME, ZBIG_OID, ZBIG_DTYPE, ZBIG_SHAPE, ...
};

// For the device that will be attached with this identifier; before attach.
void publish_properties(const std::string& identifier, const UdevProperties& properties);
void withdraw_properties(const std::string& identifier);

// Waits until udev has made /dev/zbig/NAME, or makes it. Returns its path. Busy: it names another
// device that is attached.
std::string ensure_link(const std::string& name, std::uint32_t index, Deadline deadline);

// After detach: the link is gone if it named this index.
void remove_link(const std::string& name, std::uint32_t index, Deadline deadline);

}  // namespace zbig
