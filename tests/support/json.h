// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

// A JSON document, for the manifests of tests/data. Throws std::runtime_error for what is none.

namespace zbig::test {

class Json {
 public:
  using List = std::vector<Json>;
  using Object = std::map<std::string, Json, std::less<>>;

  static Json parse(std::string_view text);
  static Json parse_file(const std::string& path);

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_text() const { return std::holds_alternative<std::string>(value_); }
  const std::string& text() const { return std::get<std::string>(value_); }
  double number() const { return std::get<double>(value_); }
  bool flag() const { return std::get<bool>(value_); }
  const List& list() const { return std::get<List>(value_); }
  const Object& object() const { return std::get<Object>(value_); }
  const Json& operator[](std::string_view key) const;  // null where there is no such key
  const Json& operator[](std::size_t i) const { return list().at(i); }

 private:
  class Parser;
  std::variant<std::monostate, bool, double, std::string, List, Object> value_;
};

}  // namespace zbig::test
