// SPDX-License-Identifier: BSD-3-Clause

#include <array>
#include <iostream>
#include <limits>

#include "bigfile/commit.h"
#include "bigfile/view.h"
#include "cli/forms.h"
#include "cli/input.h"
#include "cli/interrupt.h"
#include "cli/offline_verbs.h"
#include "cli/progress.h"

// zbig import: the bytes of a file into a volume, as one transaction.

namespace zbig {
namespace {

constexpr std::array<Option, 4> kOptions{{
    {"offset", '\0', "N", "where in the volume the file goes; default: at its start"},
    {"format", '\0', "ZBlk0|ZBlk1|auto",
     "how blocks are stored; default: $WENDELIN_CORE_ZBLK_FMT, else ZBlk0"},
    {"message", 'm', "TEXT", "the description of the transaction"},
    {"user", '\0', "NAME", "who makes it"},
}};

BlockFormat format_of(const Arguments& arguments) {
  const auto text = arguments.get("format");
  if (!text) return block_format_from_environment();
  const auto format = parse_block_format(*text);
  if (!format) throw Invalid("--format: '" + *text + "' is not ZBlk0, ZBlk1 or auto");
  return *format;
}

// An array has its size; a bare file grows up to the last block that a key can name.
void check_fits(const View& view, std::uint64_t offset, std::uint64_t length) {
  const Volume& volume = view.volume();
  const bool array = volume.kind == VolumeKind::kArray;
  const std::uint64_t limit =
      array ? view.size() : static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (offset <= limit && length <= limit - offset) return;
  throw AdvisedError(ErrorCode::kInvalid,
                     std::to_string(length) + " bytes at " + std::to_string(offset) + " end past " +
                         volume.path + ", which has " + std::to_string(view.size()) + " bytes",
                     array ? "the size of an array is its shape's; nothing was changed" : "");
}

int run(const Arguments& arguments) {
  const BlockFormat format = format_of(arguments);
  std::uint64_t offset = 0;
  if (const auto text = arguments.get("offset")) offset = parse_size(*text, "--offset");

  catch_interrupts();
  const std::shared_ptr<Storage> storage = open_storage(arguments[0], OpenMode::kWrite);
  const Tid head = storage->last_tid();
  const auto view = View::open(storage, find_volume(*storage, arguments[1], head), head);
  const Input input(arguments[2]);
  check_fits(*view, offset, input.size());

  InputSource source(input, offset, *view);
  const VolumeCommit change{view->volume(), head, &source, format};
  TransactionMeta meta;
  meta.user = arguments.get_or("user", "");
  meta.description = arguments.get_or("message", "");
  Progress progress("import " + view->volume().path);
  const CommitResult result =
      commit(*storage, std::span(&change, 1), meta, [&](std::uint64_t done, std::uint64_t total) {
        check_interrupt();
        progress.update(done, total);
      });
  std::cout << (result.tid ? result.tid->hex() : "nothing changed") << "\n";
  return 0;
}

}  // namespace

Verb import_verb() {
  return {"import", "URL VOLUME FILE",
          "puts the bytes of a file (- for standard input) into a volume, as one transaction",
          kOptions, run};
}

}  // namespace zbig
