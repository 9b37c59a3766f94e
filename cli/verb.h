// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "zodb/error.h"

// A verb of the command line, and what was typed after it.
//
// A verb is a table: its arguments, its options, and a function. From the table come parsing, the
// usage line, `zbig VERB --help` and the check of the number of arguments, so that no verb has
// parsing code of its own. `zbig::offline_verbs()` and `zbig::device_verbs()` are the two lists
// that `main` joins.

namespace zbig {

struct Option {
  std::string_view name;        // without the dashes
  char letter = '\0';           // a short form, or none
  std::string_view value = {};  // what stands for the value in the usage; empty: a switch
  std::string_view help = {};
  // What is meant where the value is left out, "" where it must not be. Then a word that follows is
  // the value only if it is one that `value` lists: "auto|/dev/nbdN", N being a number.
  std::string_view bare = {};
};

class Arguments {
 public:
  Arguments(std::vector<std::string> positional, std::multimap<std::string, std::string> options)
      : positional_(std::move(positional)), options_(std::move(options)) {}

  const std::vector<std::string>& positional() const { return positional_; }
  // The i-th argument that is no option. It must be there: the parser has checked the number.
  const std::string& operator[](std::size_t i) const { return positional_.at(i); }

  // Whether the option was given (a switch is either given or not).
  bool has(std::string_view option) const;
  // Its value, the last one if it was given twice.
  std::optional<std::string> get(std::string_view option) const;
  std::string get_or(std::string_view option, std::string_view otherwise) const;

 private:
  std::vector<std::string> positional_;
  std::multimap<std::string, std::string> options_;
};

struct Verb {
  std::string_view name;
  // As in the usage line, words separated by one space: "URL VOLUME" (both needed), "URL [VOLUME]",
  // "DEVICE..." (one or more).
  std::string_view arguments;
  std::string_view summary;         // a sentence for people
  std::span<const Option> options;  // --help is added to every verb
  // Gives the exit status, or throws zbig::Error. Output goes to stdout, progress to stderr.
  int (*run)(const Arguments& arguments) = nullptr;
};

std::span<const Verb> offline_verbs();
std::span<const Verb> device_verbs();

// "usage: zbig VERB ...", one line.
std::string usage_line(const Verb& verb);
// The whole of `zbig VERB --help`.
std::string help_text(const Verb& verb);

// Throws Invalid for an unknown option, a missing value, too few or too many arguments.
Arguments parse_arguments(const Verb& verb, std::span<const std::string> words);

// The exit status that stands for an error; docs/errors.md.
int exit_status(ErrorCode code);

// An error together with what the user can do about it: the second line.
class AdvisedError : public Error {
 public:
  AdvisedError(ErrorCode code, const std::string& sentence, std::string advice)
      : Error(code, sentence), advice(std::move(advice)) {}
  std::string advice;
};

// `text` on one line: control characters become \xNN, so that nothing that a database or a person
// says can forge a second line or drive the terminal. UTF-8 is kept.
std::string one_line(std::string_view text);

}  // namespace zbig
