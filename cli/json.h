// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "bigfile/extent.h"

// JSON for scripts: keys in the order in which they are set, one value on one line.

namespace zbig {

using Json = nlohmann::ordered_json;

// Text that is no UTF-8 (Python 2 let anything into a description) has U+FFFD in its place.
inline std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

inline Json extents_json(const ExtentList& extents) {
  Json list = Json::array();
  for (const Extent& extent : extents) {
    list.push_back({{"offset", extent.offset}, {"length", extent.length}});
  }
  return list;
}

}  // namespace zbig
