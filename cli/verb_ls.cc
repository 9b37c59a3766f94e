// SPDX-License-Identifier: BSD-3-Clause

#include <array>
#include <iostream>

#include "bigfile/survey.h"
#include "bigfile/view.h"
#include "cli/forms.h"
#include "cli/interrupt.h"
#include "cli/json.h"
#include "cli/offline_verbs.h"
#include "cli/progress.h"
#include "cli/table.h"

// zbig ls and zbig info: which volumes a database holds, and all that is known of one.

namespace zbig {
namespace {

constexpr std::array<Option, 2> kLsOptions{{
    {"at", '\0', "WHEN", "the state at that time (default: head)"},
    {"json", '\0', "",
     "a list of {path, oid, kind, blksize, size, blocks, stored_bytes, tid}; arrays also have "
     "dtype, shape, order"},
}};
constexpr std::array<Option, 2> kInfoOptions{{
    {"at", '\0', "WHEN", "the state at that time (default: head)"},
    {"json", '\0', "", "the keys of ls, and zfile, blktab, formats"},
}};

struct Facts {
  Volume volume;
  std::uint64_t size = 0;
  Survey survey;
};

Facts facts_of(const std::shared_ptr<const Storage>& storage, const Volume& volume, Tid at) {
  Progress progress("look at " + volume.path);
  Facts facts;
  facts.volume = volume;
  facts.size = View::open(storage, volume, at)->size();
  const std::uint64_t most = volume.blksize == 0 ? 0 : facts.size / volume.blksize;
  facts.survey = survey(*storage, volume, at, [&](std::uint64_t blocks) {
    check_interrupt();
    progress.update(blocks * volume.blksize, most * volume.blksize);
  });
  return facts;
}

const char* kind_of(const Volume& volume) {
  return volume.kind == VolumeKind::kArray ? "ZBigArray" : "ZBigFile";
}

std::string shape_text(const ArrayInfo& array) {
  std::string text;
  for (const std::uint64_t extent : array.shape) {
    text += (text.empty() ? "" : "x") + std::to_string(extent);
  }
  return text.empty() ? "()" : text;
}

Json as_json(const Facts& facts) {
  const Volume& volume = facts.volume;
  Json json{{"path", volume.path},
            {"oid", volume.oid.hex()},
            {"kind", kind_of(volume)},
            {"blksize", volume.blksize},
            {"size", facts.size},
            {"blocks", facts.survey.blocks},
            {"stored_bytes", facts.survey.stored_bytes},
            {"tid", facts.survey.tid.hex()}};
  if (volume.array) {
    json["dtype"] = volume.array->dtype;
    json["shape"] = volume.array->shape;
    json["order"] = std::string(1, volume.array->order);
  }
  return json;
}

int run_ls(const Arguments& arguments) {
  const std::shared_ptr<const Storage> storage = open_storage(arguments[0], OpenMode::kRead);
  const Tid at = parse_when(arguments.get_or("at", "head"), *storage);
  catch_interrupts();
  int status = 0;
  const auto on_error = [&](const std::string& sentence) {
    status = exit_status(ErrorCode::kCorrupt);
    std::cerr << "zbig: ls: " << one_line(sentence) << "\n";
  };
  Json list = Json::array();
  Table table({{"path"},
               {"oid"},
               {"kind"},
               {"size", true},
               {"stored", true},
               {"blocks", true},
               {"last tid"},
               {"dtype"},
               {"shape"}});
  for (const Volume& volume : list_volumes(*storage, at, on_error)) {
    try {
      const Facts facts = facts_of(storage, volume, at);
      list.push_back(as_json(facts));
      table.row({volume.path, volume.oid.hex(), kind_of(volume), std::to_string(facts.size),
                 human_size(facts.survey.stored_bytes), std::to_string(facts.survey.blocks),
                 facts.survey.tid.hex(), volume.array ? volume.array->dtype : "",
                 volume.array ? shape_text(*volume.array) : ""});
    } catch (const Corrupt& error) {
      on_error(volume.path + ": " + error.what());
    } catch (const Unsupported& error) {
      on_error(volume.path + ": " + error.what());
    }
  }
  if (arguments.has("json")) {
    std::cout << dump(list) << "\n";
  } else {
    table.print(std::cout);
  }
  return status;
}

int run_info(const Arguments& arguments) {
  const std::shared_ptr<const Storage> storage = open_storage(arguments[0], OpenMode::kRead);
  const Tid at = parse_when(arguments.get_or("at", "head"), *storage);
  catch_interrupts();
  const Facts facts = facts_of(storage, find_volume(*storage, arguments[1], at), at);
  const Volume& volume = facts.volume;
  const Survey& survey = facts.survey;
  if (arguments.has("json")) {
    Json json = as_json(facts);
    json["zfile"] = volume.zfile.hex();
    json["blktab"] = volume.blktab.hex();
    json["formats"] = {{"ZBlk0", survey.zblk0}, {"ZBlk1", survey.zblk1}};
    json["chunks"] = survey.chunks;
    json["at"] = at.hex();
    std::cout << dump(json) << "\n";
    return 0;
  }
  const auto line = [](const std::string& name, const std::string& value) {
    std::cout << name << std::string(14 - name.size(), ' ') << one_line(value) << "\n";
  };
  line("path", volume.path);
  line("kind", kind_of(volume));
  line("oid", volume.oid.hex());
  if (volume.array) line("zfile", volume.zfile.hex());
  line("block table", volume.blktab.hex());
  line("size", std::to_string(facts.size) + " (" + human_size(facts.size) + ")");
  if (volume.array) {
    line("dtype", volume.array->dtype);
    line("shape", shape_text(*volume.array));
    line("order", std::string(1, volume.array->order));
  }
  line("block size", std::to_string(volume.blksize));
  line("blocks", std::to_string(survey.blocks) + " (" + std::to_string(survey.zblk0) + " ZBlk0, " +
                     std::to_string(survey.zblk1) + " ZBlk1 of " + std::to_string(survey.chunks) +
                     " chunks)");
  line("stored",
       std::to_string(survey.stored_bytes) + " (" + human_size(survey.stored_bytes) + ")");
  line("last tid", survey.tid.hex() + " (" + survey.tid.iso() + ")");
  line("as of", at.hex() + " (" + at.iso() + ")");
  return 0;
}

}  // namespace

Verb ls_verb() { return {"ls", "URL", "lists the volumes of a database", kLsOptions, run_ls}; }

Verb info_verb() {
  return {"info", "URL VOLUME", "tells all that is known of a volume", kInfoOptions, run_info};
}

}  // namespace zbig
