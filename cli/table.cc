// SPDX-License-Identifier: BSD-3-Clause

#include "cli/table.h"

#include <algorithm>
#include <ostream>

#include "cli/verb.h"

namespace zbig {

std::size_t display_width(std::string_view text) {
  // Bytes that continue a code point take no column.
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::row(const std::vector<std::string>& cells) {
  invariant(cells.size() == columns_.size(), "a row of a table has a cell a column");
  auto& row = rows_.emplace_back();
  for (const std::string& cell : cells) row.push_back(one_line(cell));
}

void Table::print(std::ostream& out) const {
  if (rows_.empty()) return;
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    std::size_t width = display_width(columns_[i].title);
    for (const auto& row : rows_) width = std::max(width, display_width(row[i]));
    widths.push_back(width);
  }
  const auto line = [&](const auto& cell_of) {
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      const std::string& cell = cell_of(i);
      const std::string space(widths[i] - display_width(cell), ' ');
      const bool last = i + 1 == columns_.size();
      if (i > 0) out << "  ";
      out << (columns_[i].right ? space + cell : last ? cell : cell + space);
    }
    out << "\n";
  };
  line([&](std::size_t i) -> const std::string& { return columns_[i].title; });
  for (const auto& row : rows_) line([&](std::size_t i) -> const std::string& { return row[i]; });
}

}  // namespace zbig
