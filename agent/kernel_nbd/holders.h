// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace zbig {

// The processes, but for this one, that have the device open or mapped, whatever name it has where
// they live: "1234 (python3)". From /proc, which tells it of the processes of this machine or
// container. Who opens the device while this looks may be missed.
std::vector<std::string> device_holders(std::uint32_t index);

}  // namespace zbig
