// SPDX-License-Identifier: BSD-3-Clause

#include <algorithm>
#include <sstream>

#include <boost/program_options.hpp>

#include "cli/verb.h"

namespace zbig {
namespace {

namespace po = boost::program_options;

// "URL VOLUME FILE..." -> how many arguments a verb takes.
struct Arity {
  std::size_t least = 0;
  std::size_t most = 0;
};

std::vector<std::string> words_of(std::string_view text) {
  std::istringstream in{std::string(text)};
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

Arity arity_of(const Verb& verb) {
  Arity arity;
  for (const std::string& word : words_of(verb.arguments)) {
    if (word.front() != '[') ++arity.least;
    const bool repeats = word.find("...") != std::string::npos;
    arity.most = repeats ? std::size_t{1} << 16 : arity.most + 1;
  }
  return arity;
}

// The n-th word of "URL VOLUME", as a message names what is missing.
std::string name_of_argument(const Verb& verb, std::size_t n) {
  std::string word = words_of(verb.arguments).at(n);
  std::erase_if(word, [](char c) { return c == '[' || c == ']' || c == '.'; });
  return word;
}

std::string spelling(const Option& option) {
  std::string text = "--" + std::string(option.name);
  if (option.value.empty()) return text;
  const std::string value(option.value);
  text += option.bare.empty() ? " " + value : " [" + value + "]";
  return text;
}

po::options_description describe(const Verb& verb) {
  po::options_description known;
  const auto add = [&](std::string name, char letter, bool takes_value) {
    if (letter != '\0') name += std::string(",") + letter;
    if (takes_value) {
      known.add_options()(name.c_str(), po::value<std::string>());
    } else {
      known.add_options()(name.c_str(), "");
    }
  };
  for (const Option& option : verb.options) {
    add(std::string(option.name), option.letter, !option.value.empty());
  }
  add("help", 'h', false);
  return known;
}

bool is_listed(std::string_view value, const std::string& word) {
  std::istringstream list{std::string(value)};
  for (std::string item; std::getline(list, item, '|');) {
    if (word == item) return true;
    if (!item.ends_with('N')) continue;
    item.pop_back();
    if (word.starts_with(item) && word.find_first_not_of("0123456789", item.size()) == word.npos) {
      return true;
    }
  }
  return false;
}

// The words, with values that were left out put in.
std::vector<std::string> completed(const Verb& verb, std::span<const std::string> words) {
  std::vector<std::string> result;
  for (std::size_t i = 0; i < words.size(); ++i) {
    result.push_back(words[i]);
    if (words[i] == "--") {
      result.insert(result.end(), words.begin() + static_cast<std::ptrdiff_t>(i) + 1, words.end());
      break;
    }
    for (const Option& option : verb.options) {
      if (option.bare.empty() || words[i] != "--" + std::string(option.name)) continue;
      const bool given = i + 1 < words.size() && is_listed(option.value, words[i + 1]);
      if (!given) result.back() += "=" + std::string(option.bare);
    }
  }
  return result;
}

[[noreturn]] void refuse(const Verb& verb, const std::string& sentence) {
  throw AdvisedError(ErrorCode::kInvalid, sentence, usage_line(verb));
}

}  // namespace

bool Arguments::has(std::string_view option) const {
  return options_.contains(std::string(option));
}

std::optional<std::string> Arguments::get(std::string_view option) const {
  const auto [first, last] = options_.equal_range(std::string(option));
  if (first == last) return std::nullopt;
  return std::prev(last)->second;
}

std::string Arguments::get_or(std::string_view option, std::string_view otherwise) const {
  return get(option).value_or(std::string(otherwise));
}

std::string usage_line(const Verb& verb) {
  std::string line = "usage: zbig " + std::string(verb.name);
  if (!verb.arguments.empty()) line += " " + std::string(verb.arguments);
  for (const Option& option : verb.options) line += " [" + spelling(option) + "]";
  return line;
}

std::string help_text(const Verb& verb) {
  std::ostringstream out;
  out << usage_line(verb) << "\n\n" << verb.summary << "\n";
  if (verb.options.empty()) return out.str();
  out << "\n";
  std::size_t width = 0;
  for (const Option& option : verb.options) width = std::max(width, spelling(option).size());
  for (const Option& option : verb.options) {
    const std::string text = spelling(option);
    out << "  " << (option.letter ? std::string("-") + option.letter + ", " : "    ") << text
        << std::string(width - text.size() + 2, ' ') << option.help << "\n";
  }
  return out.str();
}

Arguments parse_arguments(const Verb& verb, std::span<const std::string> words) {
  std::vector<std::string> positional;
  std::multimap<std::string, std::string> options;
  try {
    const po::options_description known = describe(verb);
    // No guessing: an option that is added later must not change what a script meant by a prefix.
    namespace style = po::command_line_style;
    const auto parsed = po::command_line_parser(completed(verb, words))
                            .options(known)
                            .style(style::unix_style & ~style::allow_guessing)
                            .run();
    for (const po::option& option : parsed.options) {
      if (option.position_key >= 0 || option.string_key.empty()) {
        positional.insert(positional.end(), option.value.begin(), option.value.end());
      } else {
        options.emplace(option.string_key, option.value.empty() ? "" : option.value.back());
      }
    }
  } catch (const po::error& error) {
    refuse(verb, error.what());
  }
  Arguments arguments(std::move(positional), std::move(options));
  if (arguments.has("help")) return arguments;
  const Arity arity = arity_of(verb);
  const std::size_t given = arguments.positional().size();
  if (given < arity.least) refuse(verb, name_of_argument(verb, given) + " is missing");
  if (given > arity.most) refuse(verb, "one argument too many: " + arguments[arity.most]);
  return arguments;
}

}  // namespace zbig
