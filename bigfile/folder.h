// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "zodb/btree.h"
#include "zodb/record.h"

// Folders: what a path goes through. A persistent mapping (in any of its spellings) or an OOBTree,
// of which the keys that are strings, and the values that are persistent objects, count.

namespace zbig {

bool is_folder(const ObjectRecord& record);

// The entries of a folder, in its own order. Throws Corrupt, which names it.
std::vector<FolderEntry> list_entries(const Storage& storage, const LoadedObject& folder, Tid at);

// Can there be volumes at or below the entry, as far as the class in its reference says?
bool may_hold_volumes(const FolderEntry& entry);
// Is the entry a volume by that class?
bool is_volume_class(const FolderEntry& entry);

// The names of "/A/B". Throws Invalid for what is no path to anything below the root.
std::vector<std::string> split_path(const std::string& path);
// Can a path say this name? It is UTF-8 without control characters, not empty, and has no slash.
bool is_path_name(std::string_view name);

// Without leading zeros.
std::string short_hex(Oid oid);

}  // namespace zbig
