// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

// A table for people: columns as wide as their widest cell, numbers to the right.

namespace zbig {

class Table {
 public:
  struct Column {
    std::string title;
    bool right = false;  // aligned to the right
  };
  explicit Table(std::vector<Column> columns);

  // One cell a column. Control characters are shown as \xNN.
  void row(const std::vector<std::string>& cells);
  // The title line (if there is a row) and the rows.
  void print(std::ostream& out) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Columns that a terminal gives to UTF-8 text, counting each code point as one.
std::size_t display_width(std::string_view text);

}  // namespace zbig
