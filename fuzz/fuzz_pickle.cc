// SPDX-License-Identifier: BSD-3-Clause

// Any bytes as pickles, one behind the other: values or an Error, nothing else.

#include <vector>

#include "zodb/error.h"
#include "zodb/pickle_reader.h"

namespace {

// Looks at everything, up to a number of values: the ways through a pickle may be exponential (V1
// of pickle_value.h).
void look_at(zbig::Value top) {
  std::vector<zbig::Value> to_see{top};
  for (int seen = 0; seen < 10'000 && !to_see.empty(); ++seen) {
    const zbig::Value value = to_see.back();
    to_see.pop_back();
    static_cast<void>(value.integer());
    static_cast<void>(value.real());
    static_cast<void>(value.class_id());
    static_cast<void>(value.get("data"));
    if (const auto name = value.class_name()) static_cast<void>(name->str());
    if (const auto ref = value.ref()) static_cast<void>(ref->cls.str());
    std::size_t sum = 0;
    if (const auto bytes = value.bytes())
      for (const std::byte byte : *bytes) sum += std::to_integer<std::size_t>(byte);
    volatile std::size_t used = sum;
    static_cast<void>(used);
    for (const zbig::Value item : value.items()) to_see.push_back(item);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    zbig::PickleReader reader({reinterpret_cast<const std::byte*>(data), size});
    while (!reader.at_end()) look_at(reader.next());
  } catch (const zbig::Error&) {
  }
  return 0;
}
