// SPDX-License-Identifier: BSD-3-Clause

#include <array>
#include <iostream>

#include "bigfile/check.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/offline_verbs.h"

// zbig check: verifies all that can be reached, and lists every defect.

namespace zbig {
namespace {

constexpr std::array<Option, 1> kOptions{
    {{"json", '\0', "",
      "{defects, transactions, records, objects, volumes, blocks}; defects are sentences"}}};

std::string plural(std::uint64_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

int run(const Arguments& arguments) {
  const std::shared_ptr<const Storage> storage = open_storage(arguments[0], OpenMode::kRead);
  const Tid head = storage->last_tid();
  const bool json = arguments.has("json");
  catch_interrupts();

  Json defects = Json::array();
  const auto on_defect = [&](const std::string& sentence) {
    if (json) {
      defects.push_back(sentence);
    } else {
      std::cout << one_line(sentence) << "\n" << std::flush;
    }
  };
  Checker checker(storage, on_defect, [](std::uint64_t) { check_interrupt(); });

  std::vector<Volume> volumes;
  if (arguments.positional().size() > 1) {
    volumes.push_back(find_volume(*storage, arguments[1], head));
  } else {
    checker.check_storage();
    checker.check_history();
    checker.check_objects();
    volumes = list_volumes(*storage, head,
                           [&](const std::string& sentence) { checker.defect(sentence); });
  }
  for (const Volume& volume : volumes) checker.check_volume(volume, head);

  const CheckCounts& counts = checker.counts();
  if (json) {
    std::cout << dump({{"defects", std::move(defects)},
                       {"transactions", counts.transactions},
                       {"records", counts.records},
                       {"objects", counts.objects},
                       {"volumes", volumes.size()},
                       {"blocks", counts.blocks}})
              << "\n";
  } else {
    std::cout << plural(counts.transactions, "transaction") << ", "
              << plural(counts.records, "record") << ", "
              << plural(counts.objects, "reachable object") << ", "
              << plural(volumes.size(), "volume") << ", " << plural(counts.blocks, "block") << ": "
              << (counts.defects == 0 ? "no defect" : plural(counts.defects, "defect")) << "\n";
  }
  return counts.defects == 0 ? 0 : exit_status(ErrorCode::kCorrupt);
}

}  // namespace

Verb check_verb() {
  return {"check", "URL [VOLUME]", "verifies every record and block that can be reached", kOptions,
          run};
}

}  // namespace zbig
