// SPDX-License-Identifier: BSD-3-Clause

#include <algorithm>
#include <array>
#include <iostream>
#include <limits>

#include "bigfile/changes.h"
#include "cli/forms.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/offline_verbs.h"

// zbig log: the transactions that touched a volume (or any), newest first, and what of its bytes
// each changed.
//
// A transaction touches a volume when it stores the array, the file, the root of the block table,
// or a block. What it changed is found by comparing contents before and after, so storing the same
// bytes again is a transaction without extents. Each transaction is printed as soon as it is known.

namespace zbig {
namespace {

constexpr std::array<Option, 3> kOptions{{
    {"since", '\0', "WHEN", "no older ones (a tid, a time, an age like 2h)"},
    {"count", 'n', "N", "only the newest N"},
    {"json", '\0', "", "a list of {tid, time, user, description, extents, bytes}"},
}};

// What one transaction did to one volume.
struct Touch {
  std::string volume;
  ExtentList extents;
};

std::optional<Touch> touch_of(const Storage& storage, const Volume& volume,
                              const TransactionInfo& transaction, const std::vector<Oid>& stored) {
  const Tid before{transaction.tid.value - 1};
  const auto holds = [&](Oid oid) { return std::binary_search(stored.begin(), stored.end(), oid); };
  Changes changes;
  try {
    changes = changed_extents(storage, volume, before, transaction.tid, stored);
  } catch (const NotFound&) {  // not there yet, or not any more
    return std::nullopt;
  }
  if (!changes.whole_file && changes.extents.empty() && !holds(volume.oid) &&
      !holds(volume.zfile) && !holds(volume.blktab)) {
    return std::nullopt;
  }
  return Touch{volume.path, differing_extents(storage, volume, before, transaction.tid)};
}

class Printer {
 public:
  Printer(bool json, bool name_volumes) : json_(json), name_volumes_(name_volumes) {
    if (json_) std::cout << "[";
  }

  void print(const TransactionInfo& transaction, const std::vector<Touch>& touches) {
    std::uint64_t bytes = 0;
    for (const Touch& touch : touches) bytes += total_length(touch.extents);
    if (json_) {
      std::cout << (first_ ? "" : ",\n") << dump(as_json(transaction, touches, bytes));
    } else {
      print_text(transaction, touches);
    }
    std::cout << std::flush;
    first_ = false;
  }

  void finish() {
    if (json_) std::cout << "]\n";
  }

 private:
  Json as_json(const TransactionInfo& transaction, const std::vector<Touch>& touches,
               std::uint64_t bytes) const {
    Json extents = Json::array();
    for (const Touch& touch : touches) {
      for (const Extent& extent : touch.extents) {
        Json item{{"offset", extent.offset}, {"length", extent.length}};
        if (name_volumes_) item["volume"] = touch.volume;
        extents.push_back(std::move(item));
      }
    }
    return {{"tid", transaction.tid.hex()},  {"time", transaction.tid.iso()},
            {"user", transaction.user},      {"description", transaction.description},
            {"extents", std::move(extents)}, {"bytes", bytes}};
  }

  // One transaction a paragraph of one line, and a line for each volume that it changed.
  void print_text(const TransactionInfo& transaction, const std::vector<Touch>& touches) const {
    std::cout << transaction.tid.hex() << "  " << transaction.tid.iso();
    if (!transaction.user.empty()) std::cout << "  " << one_line(transaction.user);
    if (!transaction.description.empty()) std::cout << "  " << one_line(transaction.description);
    std::cout << "\n";
    for (const Touch& touch : touches) {
      std::cout << "    ";
      if (name_volumes_) std::cout << one_line(touch.volume) << ": ";
      const std::size_t count = touch.extents.size();
      std::cout << total_length(touch.extents) << " bytes changed in " << count
                << (count == 1 ? " extent\n" : " extents\n");
    }
  }

  bool json_;
  bool name_volumes_;  // the log is of all of them
  bool first_ = true;
};

std::vector<Oid> stored_oids(const TransactionInfo& transaction) {
  std::vector<Oid> oids;
  for (const auto& stored : transaction.stored) oids.push_back(stored.oid);
  std::sort(oids.begin(), oids.end());
  oids.erase(std::unique(oids.begin(), oids.end()), oids.end());
  return oids;
}

int run(const Arguments& arguments) {
  const auto storage = open_storage(arguments[0], OpenMode::kRead);
  const Tid head = storage->last_tid();
  const bool of_one = arguments.positional().size() > 1;
  std::vector<Volume> volumes;
  if (of_one) {
    volumes.push_back(find_volume(*storage, arguments[1], head));
  } else {
    volumes = list_volumes(*storage, head, [](const std::string&) {});
  }
  Tid since = kNoTid;
  if (const auto text = arguments.get("since")) since = parse_since(*text, *storage);
  std::uint64_t left = std::numeric_limits<std::uint64_t>::max();
  if (const auto text = arguments.get("count")) left = parse_count(*text, "-n");

  catch_interrupts();
  Printer printer(arguments.has("json"), !of_one);
  const auto cursor = storage->transactions(since, head, /*backwards=*/true);
  while (left > 0) {
    const auto transaction = cursor->next();
    if (!transaction) break;
    check_interrupt();
    const std::vector<Oid> stored = stored_oids(*transaction);
    std::vector<Touch> touches;
    for (const Volume& volume : volumes) {
      if (auto touch = touch_of(*storage, volume, *transaction, stored)) {
        touches.push_back(std::move(*touch));
      }
    }
    if (of_one && touches.empty()) continue;
    printer.print(*transaction, touches);
    --left;
  }
  printer.finish();
  return 0;
}

}  // namespace

Verb log_verb() {
  return {"log", "URL [VOLUME]", "lists the transactions that touched a volume, newest first",
          kOptions, run};
}

}  // namespace zbig
