// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "bigfile/extent.h"
#include "bigfile/view.h"
#include "nbdkit-plugin/overlay_layer.h"

// What a device shows at one moment: a view, and two layers of writes above it. An overlay
// (overlay.h, which tells what phases, base and stale are for) is a sequence of these; whoever has
// one reads a state that no step of the overlay changes below it (O2). Layers that are written to
// go on filling.

namespace zbig {

enum class OverlayPhase { kPlain, kFrozen, kUnfolded };

struct OverlaySnapshot {
  std::shared_ptr<const View> view;
  std::shared_ptr<Layer> bottom;
  std::shared_ptr<Layer> top;  // null: what was written since the freeze is not to be seen
  OverlayPhase phase = OverlayPhase::kPlain;
  Tid base;  // O7, and so is the next; nothing: anywhere
  std::optional<ExtentList> stale = ExtentList{};
  std::uint64_t below = 0;  // counts the changes of what is below a clean page

  std::uint64_t size() const { return bottom->bits().pages() * kPageSize; }  // of the device
  bool dirty() const { return !bottom->empty() || !top->empty(); }
  Layer& target() const { return phase == OverlayPhase::kPlain ? *bottom : *top; }

  ExtentList dirty_extents(std::uint64_t offset, std::uint64_t length) const;
  // Dirty extents, and the data of the view.
  ExtentList data_extents(std::uint64_t offset, std::uint64_t length) const;
  void read(std::uint64_t offset, std::span<std::byte> out) const;

  bool settled() const { return stale && stale->empty(); }
  bool dirty_where_stale() const;
  void move_to(std::shared_ptr<const View> next_view, const std::optional<ExtentList>& changed);
};

}  // namespace zbig
