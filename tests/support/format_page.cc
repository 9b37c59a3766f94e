// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/format_page.h"

#include <cctype>
#include <charconv>
#include <fstream>
#include <stdexcept>

#include "tests/support/paths.h"

namespace zbig::test {
namespace {

void append_line(Bytes& out, std::string_view line) {
  // The offset before two spaces, and what it looks like as text after two more.
  if (const auto start = line.find("  "); start == 4) line.remove_prefix(6);
  line = line.substr(0, line.find("  "));
  for (std::size_t i = 0; i < line.size();) {
    if (line[i] == ' ') {
      ++i;
      continue;
    }
    unsigned value = 0;
    const char* end = line.data() + std::min(i + 2, line.size());
    if (std::from_chars(line.data() + i, end, value, 16).ptr != line.data() + i + 2)
      throw std::runtime_error("not a line of hex: " + std::string(line));
    out.push_back(static_cast<std::byte>(value));
    i += 2;
  }
}

}  // namespace

std::map<std::string, Bytes> hex_examples(const std::string& page) {
  const std::string path = repository("docs/formats/" + page);
  std::ifstream in(path);
  if (!in) throw std::runtime_error("cannot open " + path);

  std::map<std::string, Bytes> examples;
  Bytes* example = nullptr;
  for (std::string line; std::getline(in, line);) {
    constexpr std::string_view kBegin = "```hex ";
    if (line.starts_with(kBegin))
      example = &examples[line.substr(kBegin.size())];
    else if (line.starts_with("```"))
      example = nullptr;
    else if (example)
      append_line(*example, line);
  }
  return examples;
}

}  // namespace zbig::test
