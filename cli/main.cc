// SPDX-License-Identifier: BSD-3-Clause

// zbig: what a person types. Finds the verb, runs it, and turns what it throws into one line on
// stderr, a second line of advice where there is any, and an exit status (docs/errors.md).

#include <csignal>
#include <iostream>
#include <new>
#include <string>
#include <vector>

#include "cli/verb.h"

namespace zbig {
namespace {

std::vector<Verb> all_verbs() {
  std::vector<Verb> verbs;
  for (const Verb& verb : offline_verbs()) verbs.push_back(verb);
  for (const Verb& verb : device_verbs()) verbs.push_back(verb);
  return verbs;
}

void print_overview(std::ostream& out) {
  out << "usage: zbig VERB ...\n\n"
         "Big arrays of a ZODB database, as files and block devices.\n";
  const auto section = [&](const char* title, std::span<const Verb> verbs) {
    if (verbs.empty()) return;
    out << "\n" << title << ":\n";
    for (const Verb& verb : verbs) {
      const std::string call = std::string(verb.name) + " " + std::string(verb.arguments);
      out << "  " << call << std::string(call.size() < 26 ? 26 - call.size() : 1, ' ')
          << verb.summary << "\n";
    }
  };
  section("On a database", offline_verbs());
  section("On devices (zbigd must be running)", device_verbs());
  out << "\n`zbig VERB --help` tells more of one; the manual page zbig(1) of all.\n"
         "URL is a storage URL or the path of a Data.fs; VOLUME is /path/from/root or oid:HEX.\n";
}

void print_error(const std::string& verb, const std::string& sentence) {
  std::cerr << "zbig: " << (verb.empty() ? "" : one_line(verb) + ": ") << one_line(sentence)
            << "\n";
}

// What to do about an error when its thrower did not say.
std::string advice_for(ErrorCode code) {
  switch (code) {
    case ErrorCode::kBusy:
      return "another program has it open for writing; end that one first, or wait for it";
    case ErrorCode::kNoSpace:
      return "nothing was changed; free some space and do it again";
    case ErrorCode::kCorrupt:
      return "`zbig check` lists every defect of a database with its place";
    default:
      return {};
  }
}

int fail(const std::string& verb, const Error& error, std::string advice) {
  print_error(verb, error.what());
  if (advice.empty()) advice = advice_for(error.code());
  if (!advice.empty()) std::cerr << one_line(advice) << "\n";
  return exit_status(error.code());
}

int run_verb(const std::string& name, std::span<const std::string> words) {
  for (const Verb& verb : all_verbs()) {
    if (verb.name != name) continue;
    const Arguments arguments = parse_arguments(verb, words);
    if (arguments.has("help")) {
      std::cout << help_text(verb);
      return 0;
    }
    const int status = verb.run(arguments);
    if (!std::cout.flush()) throw Failed("standard output: the write failed");
    return status;
  }
  throw AdvisedError(ErrorCode::kInvalid, "there is no such verb", "`zbig help` lists them");
}

int main_of(const std::vector<std::string>& words) {
  if (words.empty()) {
    print_overview(std::cerr);
    return exit_status(ErrorCode::kInvalid);
  }
  const std::string& name = words.front();
  if (name == "--version") {
    std::cout << "zbig " ZBIG_VERSION "\n";
    return 0;
  }
  if (name == "--help" || name == "-h" || (name == "help" && words.size() == 1)) {
    print_overview(std::cout);
    return 0;
  }
  try {
    if (name == "help") {
      const std::string help = "--help";
      return run_verb(words[1], std::span(&help, 1));
    }
    return run_verb(name, std::span(words).subspan(1));
  } catch (const AdvisedError& error) {
    return fail(name, error, error.advice);
  } catch (const Error& error) {
    return fail(name, error, {});
  } catch (const std::bad_alloc&) {
    print_error(name, "out of memory");
  } catch (const std::exception& error) {
    print_error(name, error.what());
  }
  return exit_status(ErrorCode::kFailed);
}

}  // namespace
}  // namespace zbig

int main(int argc, char** argv) {
  // A reader of a pipe that goes away makes the write fail, with a message and a status.
  std::signal(SIGPIPE, SIG_IGN);
  return zbig::main_of({argv + 1, argv + argc});
}
