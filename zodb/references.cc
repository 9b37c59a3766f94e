// SPDX-License-Identifier: BSD-3-Clause

#include "zodb/references.h"

#include <unordered_set>

namespace zbig {

std::vector<PersistentRef> references_in(Value state) {
  std::vector<PersistentRef> references;
  std::unordered_set<const Value::Node*> seen;
  std::vector<Value> todo{state};
  while (!todo.empty()) {
    const Value value = todo.back();
    todo.pop_back();
    if (!seen.insert(value.node()).second) continue;
    if (const auto reference = value.ref()) references.push_back(*reference);
    const auto items = value.items();
    todo.insert(todo.end(), items.begin(), items.end());
  }
  return references;
}

}  // namespace zbig
