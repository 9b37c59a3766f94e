// SPDX-License-Identifier: BSD-3-Clause

#include <array>
#include <filesystem>
#include <iostream>

#include "bigfile/import.h"
#include "cli/agent_client.h"
#include "cli/forms.h"
#include "cli/input.h"
#include "cli/interrupt.h"
#include "cli/offline_verbs.h"
#include "cli/progress.h"

// zbig import: the bytes of a file into a volume, as one transaction.

namespace zbig {
namespace {

constexpr std::array<Option, 5> kOptions{{
    {"offset", '\0', "N", "where in the volume the file goes; default: at its start"},
    {"format", '\0', "ZBlk0|ZBlk1|auto",
     "how blocks are stored; default: $WENDELIN_CORE_ZBLK_FMT, else ZBlk0"},
    {"message", 'm', "TEXT", "the description of the transaction"},
    {"user", '\0', "NAME", "who makes it"},
    {"socket", '\0', "PATH",
     "where the agent listens, if it has the database open; default: $ZBIG_SOCKET, else its usual "
     "place"},
}};

std::string_view word_of(BlockFormat format) {
  return format == BlockFormat::kZBlk1 ? "ZBlk1" : format == BlockFormat::kAuto ? "auto" : "ZBlk0";
}

BlockFormat format_of(const Arguments& arguments) {
  const auto text = arguments.get("format");
  if (!text) return block_format_from_environment();
  const auto format = parse_block_format(*text);
  if (!format) throw Invalid("--format: '" + *text + "' is not ZBlk0, ZBlk1 or auto");
  return *format;
}

// zbigd has the database open for its devices, and with it the lock: then the import is the agent's
// to make. Nothing if it does not have it, or there is no agent.
std::optional<std::string> import_by_agent(const Arguments& arguments,
                                           const ImportRequest& request) {
  const AgentClient client(arguments.get("socket"));
  if (!client.listens()) return std::nullopt;
  const std::string url = arguments[0].find("://") == std::string::npos
                              ? std::filesystem::absolute(arguments[0]).lexically_normal().string()
                              : arguments[0];
  const std::string target = "/v1/import?url=" + percent_encoded(url) +
                             "&volume=" + percent_encoded(request.volume) +
                             "&offset=" + std::to_string(request.offset) +
                             "&format=" + std::string(word_of(request.format)) +
                             "&message=" + percent_encoded(request.meta.description) +
                             "&user=" + percent_encoded(request.meta.user);
  const Input input(arguments[2]);
  const ImportFile file = input.file();
  Progress progress("import " + request.volume);
  try {
    const Json answer = client.upload(target, file.fd, file.size, [&](std::uint64_t done) {
      check_interrupt();
      progress.update(done, file.size);
    });
    return answer["tid"].is_string() ? answer["tid"].get<std::string>() : "nothing changed";
  } catch (const Error& error) {
    if (std::string_view(error.what()).starts_with("no device of ")) return std::nullopt;
    throw;
  }
}

int run(const Arguments& arguments) {
  ImportRequest request;
  request.volume = arguments[1];
  request.format = format_of(arguments);
  if (const auto text = arguments.get("offset")) request.offset = parse_size(*text, "--offset");
  request.meta.user = arguments.get_or("user", "");
  request.meta.description = arguments.get_or("message", "");

  catch_interrupts();
  std::unique_ptr<Storage> storage;
  try {
    storage = open_storage(arguments[0], OpenMode::kWrite);
  } catch (const Busy&) {
    const auto outcome = import_by_agent(arguments, request);
    if (!outcome) throw;
    std::cout << *outcome << "\n";
    return 0;
  }
  const Input input(arguments[2]);
  Progress progress("import " + request.volume);
  const CommitResult result =
      import_file(*storage, request, input.file(), [&](std::uint64_t done, std::uint64_t total) {
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
