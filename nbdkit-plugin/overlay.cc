// SPDX-License-Identifier: BSD-3-Clause
#include "nbdkit-plugin/overlay.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <utility>

#include "zodb/error.h"

// Everything but opening, which is in overlay_open.cc.

namespace zbig {
namespace {

// Layers that a commit dropped are removed many at once, for that needs a sync of the state; but
// large ones at once.
constexpr std::size_t kMaxDoomed = 16;
constexpr std::uint64_t kMaxDoomedPages = 256;

}  // namespace

Overlay::Overlay(std::string directory, DeviceSize wanted, File directory_file, StateFile state,
                 std::uint64_t next_layer, Snapshot snapshot)
    : directory_(std::move(directory)),
      wanted_(wanted),
      directory_file_(std::move(directory_file)),
      next_layer_(next_layer),
      state_(std::move(state)),
      snapshot_(std::make_shared<const Snapshot>(std::move(snapshot))) {}

Overlay::~Overlay() {
  try {
    flush();
  } catch (const Error&) {
    // Nobody waits for an answer; what was not flushed was not promised.
  }
}

Overlay::SnapshotPtr Overlay::snapshot() const {
  std::lock_guard lock(snapshot_mutex_);
  return snapshot_;
}

void Overlay::swap_in(Snapshot next) {
  auto fresh = std::make_shared<const Snapshot>(std::move(next));
  std::lock_guard lock(snapshot_mutex_);
  snapshot_.swap(fresh);
}

void Overlay::set_failure(const std::string& sentence) {
  std::lock_guard lock(snapshot_mutex_);
  failure_ = sentence;
}

// --- what a device does

void Overlay::write(std::uint64_t offset, ByteView bytes) {
  write_pages(offset, bytes.size(), bytes);
}

void Overlay::zero(std::uint64_t offset, std::uint64_t length) {
  write_pages(offset, length, std::nullopt);
}

void Overlay::write_pages(std::uint64_t offset, std::uint64_t length,
                          std::optional<ByteView> bytes) {
  if (length == 0) return;
  const std::uint64_t end = offset + length;
  invariant(end <= size(), "a write past the end of the device");
  const std::uint64_t first = offset / kPageSize;
  const std::uint64_t last = (end - 1) / kPageSize;
  const PageLocks::Held held(page_locks_, first, last - first + 1);

  // The first and the last page where the range covers only a part of them.
  std::array<std::array<std::byte, kPageSize>, 2> edge;
  const bool has_head = offset % kPageSize != 0 || (first == last && end % kPageSize != 0);
  const bool has_tail = first != last && end % kPageSize != 0;
  const std::uint64_t middle = has_head ? (first + 1) * kPageSize : offset;
  const std::uint64_t middle_end = has_tail ? last * kPageSize : end;

  const auto fill_edge = [&](const Snapshot& shown, std::span<std::byte> page_bytes,
                             std::uint64_t page) {
    shown.read(page * kPageSize, page_bytes);
    const std::uint64_t from = std::max(offset, page * kPageSize);
    const std::uint64_t to = std::min(end, (page + 1) * kPageSize);
    const auto part = page_bytes.subspan(from - page * kPageSize, to - from);
    if (bytes) {
      std::copy_n(bytes->begin() + static_cast<std::ptrdiff_t>(from - offset), to - from,
                  part.begin());
    } else {
      std::fill(part.begin(), part.end(), std::byte{0});
    }
  };

  for (;;) {
    const SnapshotPtr shown = snapshot();
    if (has_head) fill_edge(*shown, edge[0], first);
    if (has_tail) fill_edge(*shown, edge[1], last);

    const WriteGate::Pass pass(gate_);  // O3
    const SnapshotPtr now = snapshot();
    // What the edges were filled from is no longer what is below them.
    if ((has_head || has_tail) && now->below != shown->below) continue;

    Layer& layer = now->target();
    const ByteView head = has_head ? ByteView(edge[0]) : ByteView();
    const ByteView tail = has_tail ? ByteView(edge[1]) : ByteView();
    const std::uint64_t inside = middle < middle_end ? middle_end - middle : 0;
    if (bytes) {
      const std::array<ByteView, 3> parts{
          head, inside > 0 ? bytes->subspan(middle - offset, inside) : ByteView(), tail};
      layer.write(first, parts);
    } else {
      if (has_head) layer.write(first, std::span(&head, 1));
      if (inside > 0) layer.zero(middle / kPageSize, inside / kPageSize);
      if (has_tail) layer.write(last, std::span(&tail, 1));
    }
    return;
  }
}

void Overlay::flush() {
  try {
    std::lock_guard sync_lock(sync_mutex_);
    const SnapshotPtr now = snapshot();
    if (now->dirty()) {
      now->bottom->sync();
      now->top->sync();
    }
    std::lock_guard lock(state_mutex_);
    if (!now->dirty() && doomed_.empty()) return;  // nothing was promised
    OverlayState state = state_.state();
    for (const Layer* layer : {now->bottom.get(), now->top.get()}) {
      for (NamedLayer* named : {&state.bottom, &state.top}) {
        if (named->number == layer->number() && !layer->empty()) named->flushed = true;
      }
    }
    if (state != state_.state()) {
      directory_file_.sync();
      state_.save(state);  // O5
    }
    sync_state();
  } catch (const Error& error) {
    set_failure(error.what());
    throw;
  }
}

// --- what the agent does

std::shared_ptr<Layer> Overlay::new_layer() {
  if (spare_) return std::exchange(spare_, nullptr);
  const std::uint64_t number = next_layer_++;
  for (bool again = false;; again = true) {
    try {
      return Layer::create(directory_, number, size());
    } catch (const NoSpace&) {
      Layer::unlink(directory_, number);
      if (again || !remove_doomed()) throw;
    } catch (const Error&) {
      Layer::unlink(directory_, number);
      throw;
    }
  }
}

bool Overlay::remove_doomed() {
  std::lock_guard lock(state_mutex_);
  if (doomed_.empty()) return false;
  sync_state();
  return true;
}

std::unique_lock<std::mutex> Overlay::growing_with(const View& view) {
  if (wanted_.with(view) <= size() || wanted_.fixed != 0) return {};
  return std::unique_lock(sync_mutex_);
}

void Overlay::grow(Snapshot& next) {
  const std::uint64_t size = wanted_.with(*next.view);
  {
    std::lock_guard lock(state_mutex_);
    OverlayState state = state_.state();
    state.size = size;
    state_.save(state);
    sync_state();
  }
  std::shared_ptr<Layer> spare = spare_;
  for (std::shared_ptr<Layer>* layer : {&next.bottom, &next.top, &spare}) {
    if (*layer) *layer = (*layer)->enlarged(size);
  }
  spare_ = std::move(spare);
}

void Overlay::save_and_swap(Snapshot next) {
  {
    std::lock_guard lock(state_mutex_);
    OverlayState state = state_.state();
    const std::array<NamedLayer, 2> old{state.bottom, state.top};
    // A layer keeps what was promised about it.
    const auto name = [&](const Layer& layer) {
      const auto same = std::find_if(old.begin(), old.end(), [&](const NamedLayer& named) {
        return named.number == layer.number();
      });
      return same != old.end() ? *same : NamedLayer{layer.number(), false};
    };
    state.view = next.view->at();
    state.base = next.base;
    state.bottom = name(*next.bottom);
    state.top = name(*next.top);
    state_.save(state);
    const SnapshotPtr before = snapshot();
    for (const NamedLayer& named : old) {
      if (named.number != state.bottom.number && named.number != state.top.number) {
        doomed_.push_back(named.number);
        dropped_promised_ |= named.flushed;
        for (const Layer* layer : {before->bottom.get(), before->top.get()}) {
          if (layer->number() == named.number) doomed_pages_ += layer->bits().count();
        }
      }
    }
  }
  swap_in(std::move(next));
}

void Overlay::freeze() {
  std::lock_guard control(control_mutex_);
  {
    std::lock_guard lock(state_mutex_);
    if (dropped_promised_) sync_state();  // O8
  }
  Snapshot next = *snapshot();
  if (next.phase == Phase::kFrozen) throw Busy("a commit is under way");
  if (next.phase == Phase::kUnfolded) {
    fold();
    next = *snapshot();
  }
  const WriteGate::Closed closed(gate_);
  next.phase = Phase::kFrozen;
  swap_in(std::move(next));
}

void Overlay::unfreeze() {
  std::lock_guard control(control_mutex_);
  Snapshot next = *snapshot();
  if (next.phase == Phase::kPlain) return;
  {
    const WriteGate::Closed closed(gate_);
    next.phase = Phase::kUnfolded;
    swap_in(std::move(next));
  }
  fold();
}

void Overlay::fold() {
  try {
    // Writers wait: what was written since the freeze is little, or the commit would not have
    // failed so late.
    const WriteGate::Closed closed(gate_);
    Snapshot next = *snapshot();
    next.phase = Phase::kPlain;
    if (next.top->empty()) {
      swap_in(std::move(next));
    } else {
      next.bottom->absorb(*next.top);
      next.bottom->sync();
      const std::shared_ptr<Layer> spare = new_layer();
      {
        // The bottom now holds what a flush may have promised of the top.
        std::lock_guard lock(state_mutex_);
        directory_file_.sync();
        OverlayState state = state_.state();
        state.bottom.flushed = true;
        state_.save(state);
      }
      next.top = spare;
      save_and_swap(std::move(next));
    }
    set_failure("");
  } catch (const Error& error) {
    set_failure(std::string("joining the writes after a failed commit: ") + error.what());
    throw;
  }
}

void Overlay::committed(std::shared_ptr<const View> view,
                        const std::optional<ExtentList>& changed) {
  const auto growing = growing_with(*view);
  std::lock_guard control(control_mutex_);
  if (snapshot()->phase != Phase::kFrozen) throw Busy("no commit is under way");
  const std::shared_ptr<Layer> spare = new_layer();
  const WriteGate::Closed closed(gate_);
  Snapshot next = *snapshot();
  next.bottom = std::exchange(next.top, spare);
  next.phase = Phase::kPlain;
  next.move_to(std::move(view), changed);
  if (growing) grow(next);
  save_and_swap(std::move(next));
}

ExtentList Overlay::abort(std::shared_ptr<const View> view,
                          const std::optional<ExtentList>& changed) {
  const auto growing = growing_with(*view);
  std::lock_guard control(control_mutex_);
  if (snapshot()->phase == Phase::kFrozen) throw Busy("a commit is under way");
  // The disk may be full. One layer is there, kept for this; and an empty top can stay.
  const std::shared_ptr<Layer> bottom = new_layer();
  const std::shared_ptr<Layer> old_top = snapshot()->top;
  const std::shared_ptr<Layer> top = old_top->empty() ? old_top : new_layer();
  const WriteGate::Closed closed(gate_);
  Snapshot next = *snapshot();
  ExtentList given_up = next.dirty_extents(0, next.size());
  next.bottom = bottom;
  next.top = top;
  next.phase = Phase::kPlain;
  next.move_to(std::move(view), changed);
  if (growing) grow(next);
  save_and_swap(std::move(next));
  set_failure("");
  return given_up;
}

void Overlay::move_view(std::shared_ptr<const View> view,
                        const std::optional<ExtentList>& changed) {
  const auto growing = growing_with(*view);
  std::lock_guard control(control_mutex_);
  const WriteGate::Closed closed(gate_);
  Snapshot next = *snapshot();
  if (next.phase == Phase::kFrozen) throw Busy("a commit is under way");
  if (next.dirty()) throw Busy("there are uncommitted writes");
  next.move_to(std::move(view), changed);
  if (growing) grow(next);
  save_and_swap(std::move(next));
}

void Overlay::settled() {
  std::lock_guard control(control_mutex_);
  const WriteGate::Closed closed(gate_);
  Snapshot next = *snapshot();
  if (next.settled()) return;
  if (next.phase == Phase::kFrozen) throw Busy("a commit is under way");
  if (!next.dirty_where_stale()) next.base = next.view->at();
  next.stale = ExtentList{};
  save_and_swap(std::move(next));
}

void Overlay::tidy() {
  {
    std::lock_guard sync_lock(sync_mutex_);
    std::lock_guard lock(state_mutex_);
    const bool much = doomed_.size() >= kMaxDoomed || doomed_pages_ >= kMaxDoomedPages;
    if (dropped_promised_ || much) sync_state();
  }
  std::lock_guard control(control_mutex_);
  if (!spare_) spare_ = new_layer();
}

void Overlay::sync_state() {
  state_.sync();
  dropped_promised_ = false;
  while (!doomed_.empty()) {
    Layer::unlink(directory_, doomed_.back());
    doomed_.pop_back();
  }
  doomed_pages_ = 0;
}

void Overlay::destroy() {
  {
    std::lock_guard control(control_mutex_);
    const WriteGate::Closed closed(gate_);
    Snapshot next = *snapshot();
    next.phase = Phase::kUnfolded;
    swap_in(std::move(next));
  }
  abort(view(), ExtentList{});
  {
    std::lock_guard lock(state_mutex_);
    sync_state();
  }
  // The layers are empty now: whatever part of this a crash cuts off, nothing is left to lose.
  const SnapshotPtr last = snapshot();
  std::error_code ignored;  // a directory that holds something else stays
  std::filesystem::remove(directory_ + "/state", ignored);
  directory_file_.sync();
  Layer::unlink(directory_, last->bottom->number());
  Layer::unlink(directory_, last->top->number());
  if (spare_) Layer::unlink(directory_, spare_->number());
  std::filesystem::remove(directory_, ignored);
}

Overlay::Status Overlay::status() const {
  Status status;
  SnapshotPtr now;
  {
    std::lock_guard lock(snapshot_mutex_);
    now = snapshot_;
    status.error = failure_;
  }
  status.at = now->view->at();
  status.base = now->base;
  status.settled = now->settled();
  const std::uint64_t bottom = now->bottom->bits().count() * kPageSize;
  const std::uint64_t top = now->top->bits().count() * kPageSize;
  switch (now->phase) {
    case Phase::kPlain:
      status.dirty_bytes = bottom;
      break;
    case Phase::kFrozen:
      status.dirty_bytes = top;
      status.frozen_bytes = bottom;
      break;
    case Phase::kUnfolded:
      status.dirty_bytes = total_length(now->dirty_extents(0, now->size()));
      break;
  }
  return status;
}

std::uint64_t Overlay::bytes_on_disk() const {
  const SnapshotPtr now = snapshot();
  return now->bottom->bytes_on_disk() + now->top->bytes_on_disk();
}

// --- frozen

std::shared_ptr<const Overlay::Frozen> Overlay::frozen() const {
  Snapshot now = *snapshot();
  if (now.phase != Phase::kFrozen) throw Busy("no commit is under way");
  now.top = nullptr;
  return std::make_shared<const Frozen>(*this, std::move(now));
}

void Overlay::Frozen::check() const {
  const SnapshotPtr now = overlay_.snapshot();
  if (now->phase != Phase::kFrozen || now->bottom != snapshot_.bottom) {
    throw Failed("the commit for which the writes were frozen is over");
  }
}

ExtentList Overlay::Frozen::dirty_extents(std::uint64_t offset, std::uint64_t length) const {
  check();
  return snapshot_.dirty_extents(offset, length);
}

void Overlay::Frozen::read(std::uint64_t offset, std::span<std::byte> out) const {
  snapshot_.read(offset, out);
  check();  // afterwards: while it was read it stood still
}

}  // namespace zbig
