// SPDX-License-Identifier: BSD-3-Clause
#include "nbdkit-plugin/overlay_snapshot.h"

#include <algorithm>
#include <utility>

#include "nbdkit-plugin/padded_view.h"

namespace zbig {

namespace {

// Calls `visit(layer or nullptr for the view, first page, count)` over pages [first, end).
template <class Visit>
void for_each_run(const OverlaySnapshot& shown, std::uint64_t first, std::uint64_t end,
                  Visit visit) {
  const auto run_of = [](const Layer* layer, std::uint64_t page, std::uint64_t limit) {
    return layer == nullptr || layer->empty() ? PageBitmap::Run{false, limit - page}
                                              : layer->bits().run(page, limit);
  };
  while (first < end) {
    const PageBitmap::Run upper = run_of(shown.top.get(), first, end);
    const std::uint64_t upper_end = first + upper.count;
    if (upper.set) {
      visit(shown.top.get(), first, upper.count);
      first = upper_end;
    }
    while (first < upper_end) {
      const PageBitmap::Run lower = run_of(shown.bottom.get(), first, upper_end);
      visit(lower.set ? shown.bottom.get() : nullptr, first, lower.count);
      first += lower.count;
    }
  }
}

}  // namespace

ExtentList OverlaySnapshot::dirty_extents(std::uint64_t offset, std::uint64_t length) const {
  ExtentList extents;
  if (length == 0) return extents;
  const std::uint64_t end = rounded_up(offset + length) / kPageSize;
  for_each_run(*this, offset / kPageSize, end,
               [&](const Layer* layer, std::uint64_t first, std::uint64_t count) {
                 if (layer != nullptr) {
                   append_extent(extents, first * kPageSize, count * kPageSize);
                 }
               });
  return clipped(extents, offset, length);
}

void OverlaySnapshot::read(std::uint64_t offset, std::span<std::byte> out) const {
  const std::uint64_t end = offset + out.size();
  if (out.empty()) return;
  for_each_run(*this, offset / kPageSize, rounded_up(end) / kPageSize,
               [&](const Layer* layer, std::uint64_t first, std::uint64_t count) {
                 const std::uint64_t from = std::max(offset, first * kPageSize);
                 const std::uint64_t to = std::min(end, (first + count) * kPageSize);
                 const auto part = out.subspan(from - offset, to - from);
                 if (layer != nullptr) {
                   layer->read(from, part);
                 } else {
                   read_padded(*view, from, part);
                 }
               });
}

ExtentList OverlaySnapshot::data_extents(std::uint64_t offset, std::uint64_t length) const {
  ExtentList extents;
  if (length == 0) return extents;
  for_each_run(*this, offset / kPageSize, rounded_up(offset + length) / kPageSize,
               [&](const Layer* layer, std::uint64_t first, std::uint64_t count) {
                 if (layer != nullptr) {
                   append_extent(extents, first * kPageSize, count * kPageSize);
                   return;
                 }
                 for (const Extent& extent :
                      padded_data_extents(*view, first * kPageSize, count * kPageSize)) {
                   append_extent(extents, extent.offset, extent.length);
                 }
               });
  return clipped(extents, offset, length);
}

bool OverlaySnapshot::dirty_where_stale() const {
  if (!stale) return dirty();
  return std::any_of(stale->begin(), stale->end(), [&](const Extent& extent) {
    const std::uint64_t end = std::min(extent.end(), size());
    return extent.offset < end && !dirty_extents(extent.offset, end - extent.offset).empty();
  });
}

void OverlaySnapshot::move_to(std::shared_ptr<const View> next_view,
                              const std::optional<ExtentList>& changed) {
  ++below;
  view = std::move(next_view);
  if (stale && changed) {
    const ExtentList copied = clipped(*changed, 0, size());  // O9
    stale->insert(stale->end(), copied.begin(), copied.end());
    stale = normalised(std::move(*stale));
  } else {
    stale.reset();
  }
  base = settled() ? view->at() : std::min(base, view->at());
}

}  // namespace zbig
