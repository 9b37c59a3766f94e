// SPDX-License-Identifier: BSD-3-Clause

#include <array>
#include <iostream>

#include "bigfile/changes.h"
#include "cli/forms.h"
#include "cli/json.h"
#include "cli/offline_verbs.h"
#include "cli/table.h"

// zbig diff: where two states of a volume differ, byte by byte.

namespace zbig {
namespace {

constexpr std::array<Option, 1> kOptions{{{"json", '\0', "", "a list of {offset, length}"}}};

// The volume as of the later of two states, or as of the earlier one if it is gone by then.
Volume volume_at_either(const Storage& storage, const std::string& name, Tid first, Tid second) {
  try {
    return find_volume(storage, name, std::max(first, second));
  } catch (const NotFound&) {
    return find_volume(storage, name, std::min(first, second));
  }
}

int run(const Arguments& arguments) {
  const auto storage = open_storage(arguments[0], OpenMode::kRead);
  const Tid from = parse_when(arguments[2], *storage);
  const Tid to = parse_when(arguments[3], *storage);
  const Volume volume = volume_at_either(*storage, arguments[1], from, to);
  const ExtentList extents = differing_extents(*storage, volume, from, to);
  if (arguments.has("json")) {
    std::cout << dump(extents_json(extents)) << "\n";
    return 0;
  }
  if (extents.empty()) {
    std::cout << "no difference\n";
    return 0;
  }
  Table table({{"offset", true}, {"length", true}});
  for (const Extent& extent : extents) {
    table.row({std::to_string(extent.offset), std::to_string(extent.length)});
  }
  table.print(std::cout);
  return 0;
}

}  // namespace

Verb diff_verb() {
  return {"diff", "URL VOLUME WHEN WHEN", "lists the bytes that differ between two states",
          kOptions, run};
}

}  // namespace zbig
