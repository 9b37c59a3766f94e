// SPDX-License-Identifier: BSD-3-Clause

#include <algorithm>
#include <array>

#include "bigfile/view.h"
#include "cli/forms.h"
#include "cli/interrupt.h"
#include "cli/offline_verbs.h"
#include "cli/output.h"
#include "cli/progress.h"

// zbig export: the bytes of a volume, exactly its size, as of any transaction.
//
// Only what is there is read: holes, of which a volume of petabytes mostly consists, become holes
// of the file, or zeros in a pipe.

namespace zbig {
namespace {

constexpr std::size_t kStep = 4u << 20;

constexpr std::array<Option, 4> kOptions{{
    {"at", '\0', "WHEN", "the state at that time (a tid, a time, an age like 2h; default: head)"},
    {"output", 'o', "FILE", "where to; - or nothing: standard output"},
    {"offset", '\0', "N", "start there"},
    {"length", '\0', "N", "so many bytes; default: up to the end"},
}};

// What of the volume is asked for. Throws Invalid if it is not all there.
Extent range_of(const Arguments& arguments, const View& view) {
  Extent range;
  if (const auto text = arguments.get("offset")) range.offset = parse_size(*text, "--offset");
  const std::string size = std::to_string(view.size());
  if (range.offset > view.size()) {
    throw Invalid("--offset: " + std::to_string(range.offset) + " is past the end of " +
                  view.volume().path + ", which has " + size + " bytes");
  }
  range.length = view.size() - range.offset;
  if (const auto text = arguments.get("length")) {
    const std::uint64_t length = parse_size(*text, "--length");
    if (length > range.length) {
      throw Invalid("--length: " + std::to_string(length) + " bytes from " +
                    std::to_string(range.offset) + " end past " + view.volume().path +
                    ", which has " + size + " bytes");
    }
    range.length = length;
  }
  return range;
}

int run(const Arguments& arguments) {
  const std::shared_ptr<const Storage> storage = open_storage(arguments[0], OpenMode::kRead);
  const Tid at = parse_when(arguments.get_or("at", "head"), *storage);
  const auto view = View::open(storage, find_volume(*storage, arguments[1], at), at);
  const Extent range = range_of(arguments, *view);

  catch_interrupts();
  Output output(arguments.get_or("output", "-"), range.length);
  Progress progress("export " + view->volume().path);
  const ExtentList data = view->data_extents(range.offset, range.length);
  const std::uint64_t total = total_length(data);
  Bytes buffer(static_cast<std::size_t>(std::min<std::uint64_t>(kStep, total)));
  std::uint64_t at_byte = range.offset;
  std::uint64_t done = 0;
  for (const Extent& extent : data) {
    output.zeros(extent.offset - at_byte);
    for (at_byte = extent.offset; at_byte < extent.end();) {
      check_interrupt();
      const std::uint64_t left = extent.end() - at_byte;
      const auto part =
          std::span(buffer).first(static_cast<std::size_t>(std::min<std::uint64_t>(kStep, left)));
      if (left > part.size()) {
        view->prefetch(at_byte + part.size(), std::min<std::uint64_t>(kStep, left - part.size()));
      }
      view->read(at_byte, part);
      output.write(part);
      at_byte += part.size();
      done += part.size();
      progress.update(done, total);
    }
  }
  output.zeros(range.end() - at_byte);
  output.finish();
  return 0;
}

}  // namespace

Verb export_verb() {
  return {"export", "URL VOLUME", "writes the bytes of a volume to a file or standard output",
          kOptions, run};
}

}  // namespace zbig
