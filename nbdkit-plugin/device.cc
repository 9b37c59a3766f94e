// SPDX-License-Identifier: BSD-3-Clause
#include "nbdkit-plugin/device.h"

#include <algorithm>
#include <chrono>
#include <iostream>
#include <thread>
#include <utility>

#include "zodb/error.h"

namespace zbig {
namespace {

constexpr std::chrono::seconds kClosePatience{10};
constexpr std::chrono::milliseconds kRoomPoll{100};

}  // namespace

Device::Device(DeviceConfig config, std::shared_ptr<ServedDatabase> database)
    : config_(std::move(config)), database_(std::move(database)) {
  if (config_.read_only) {
    view_ = database_->view(config_.volume, config_.at.value_or(database_->head()));
    size_ = wanted_size().with(*view_);
  } else {
    overlay_ = Overlay::open(config_.overlay, wanted_size(),
                             [&](auto recorded) { return first_view(recorded); });
  }
  // When a device comes back its volume may have become larger or smaller; of what is written past
  // the end of an array a commit takes care.
  if (config_.size == 0 || config_.resume) return;
  const std::shared_ptr<const View> shown = view();
  const std::string device = "a device of " + std::to_string(size()) + " bytes is ";
  const std::string volume = config_.volume + ", which has " + std::to_string(shown->size());
  if (size() < shown->size()) throw Invalid(device + "too small for " + volume);
  // What a program writes past an array's end would be no part of it.
  if (shown->volume().array && size() > rounded_up(shown->size())) {
    throw Invalid(device + "larger than the array " + volume);
  }
}

DeviceSize Device::wanted_size() const {
  return {.fixed = rounded_up(config_.size), .least = rounded_up(config_.least)};
}

std::uint64_t Device::size() const {
  if (!config_.read_only) return overlay()->size();
  std::lock_guard lock(mutex_);
  return size_;
}

std::shared_ptr<const View> Device::first_view(std::optional<Overlay::Recorded> recorded) const {
  if (recorded && recorded->dirty) return database_->view(config_.volume, recorded->view);
  if (recorded && config_.resume) {
    try {
      return database_->view(config_.volume, recorded->view);
    } catch (const NotFound&) {
      // Packed away, or the database was replaced; nothing is lost, as nothing is dirty.
    }
  }
  return database_->view(config_.volume, config_.at.value_or(database_->head()));
}

std::shared_ptr<Overlay> Device::overlay() const {
  std::lock_guard lock(mutex_);
  if (closed_) throw Failed("device " + config_.name + " is detached");
  if (!overlay_) throw ReadOnly("device " + config_.name + " is read-only");
  return overlay_;
}

std::shared_ptr<const View> Device::view() const {
  if (!config_.read_only) return overlay()->view();
  std::lock_guard lock(mutex_);
  if (closed_) throw Failed("device " + config_.name + " is detached");
  return view_;
}

// --- what a client does

void Device::refuse_stale_read() const {
  if (!stale_) return;
  const Overlay::Status now = status();
  if (now.dirty_bytes + now.frozen_bytes > 0) return;
  throw Unavailable("device " + config_.name + " shows the state of " + now.at.hex() +
                    ", and whether there is a newer one can not be learned");
}

void Device::read(std::uint64_t offset, std::span<std::byte> out) const {
  refuse_stale_read();
  if (config_.read_only) {
    read_padded(*view(), offset, out);
  } else {
    overlay()->read(offset, out);
  }
}

ExtentList Device::data_extents(std::uint64_t offset, std::uint64_t length) const {
  refuse_stale_read();
  return config_.read_only ? padded_data_extents(*view(), offset, length)
                           : overlay()->data_extents(offset, length);
}

void Device::prefetch(std::uint64_t offset, std::uint64_t length) const {
  const std::shared_ptr<const View> shown = view();
  if (offset < shown->size()) shown->prefetch(offset, std::min(length, shown->size() - offset));
}

template <class Write>
void Device::with_room(Write write) {
  bool waiting = false;
  const auto stop_waiting = [&] {
    std::lock_guard lock(mutex_);
    if (waiting && --waiting_ == 0) {
      std::cerr << "zbig: device " + config_.name + ": there is room again\n";
    }
    waiting = false;
  };
  for (;;) {
    try {
      write(*overlay());
      return stop_waiting();
    } catch (const NoSpace& error) {
      if (!config_.wait_for_room) {
        lost_write_ = true;
        throw;
      }
      std::unique_lock lock(mutex_);
      full_ = error.what();
      if (!waiting && ++waiting_ == 1) {
        std::cerr << "zbig: device " + config_.name + ": writers wait for room: " + full_ + "\n";
      }
      waiting = true;
      changed_.wait_for(lock, kRoomPoll, [&] { return closed_; });
    } catch (...) {
      lost_write_ = true;
      stop_waiting();
      throw;
    }
    try {
      overlay()->remove_doomed();
    } catch (const Error&) {
      // The next write tells what is wrong.
    }
  }
}

void Device::write(std::uint64_t offset, ByteView bytes) {
  with_room([&](Overlay& overlay) { overlay.write(offset, bytes); });
}

void Device::zero(std::uint64_t offset, std::uint64_t length) {
  with_room([&](Overlay& overlay) { overlay.zero(offset, length); });
}

void Device::flush() {
  if (!config_.read_only) overlay()->flush();
}

// --- what the agent does

Device::Frozen Device::freeze() {
  std::lock_guard step(step_mutex_);
  const std::shared_ptr<Overlay> overlay = this->overlay();
  overlay->freeze();
  const std::shared_ptr<const Overlay::Frozen> frozen = overlay->frozen();
  return {frozen->base(), frozen->dirty_extents(0, overlay->size()), frozen->file()};
}

ExtentList Device::frozen_extents(std::uint64_t from) const {
  const std::uint64_t size = this->size();
  if (from >= size) return {};
  return overlay()->frozen()->dirty_extents(from, size - from);
}

void Device::unfreeze() {
  std::lock_guard step(step_mutex_);
  if (!config_.read_only) overlay()->unfreeze();
}

Moved Device::committed(Tid at, bool stored) {
  std::lock_guard step(step_mutex_);
  const std::shared_ptr<Overlay> overlay = this->overlay();
  const std::shared_ptr<const View> old_view = overlay->view();
  if (at < old_view->at()) {
    throw Invalid("a commit at " + at.hex() + " is older than the view of device " + config_.name +
                  ", " + old_view->at().hex());
  }
  std::shared_ptr<const View> next = database_->moved(old_view, at);
  // What others committed since the old view: all but the commit itself.
  const Tid others_until{stored && at > old_view->at() ? at.value - 1 : at.value};
  Moved moved{at, changes(*old_view, others_until)};
  overlay->committed(std::move(next), moved.extents);
  if (!moved.extents) lost_write_ = false;
  return moved;
}

// What differs at `to`; nothing: it may be anything.
std::optional<ExtentList> Device::changes(const View& from, Tid to) const {
  if (lost_write_) return std::nullopt;
  if (from.at() == to) return ExtentList{};
  Changes changes = database_->changes(from, to);
  if (changes.whole_file) return std::nullopt;
  return std::move(changes.extents);
}

Moved Device::abort() {
  std::lock_guard step(step_mutex_);
  const std::shared_ptr<Overlay> overlay = this->overlay();
  const std::shared_ptr<const View> old_view = overlay->view();
  const std::shared_ptr<const View> next =
      database_->moved(old_view, std::max(old_view->at(), database_->head()));
  Moved moved{next->at(), changes(*old_view, next->at())};
  ExtentList given_up = overlay->abort(next, moved.extents);
  if (!moved.extents) lost_write_ = false;
  if (moved.extents) {
    given_up.insert(given_up.end(), moved.extents->begin(), moved.extents->end());
    moved.extents = normalised(std::move(given_up));
  }
  return moved;
}

Moved Device::refresh(std::optional<Tid> at) {
  std::lock_guard step(step_mutex_);
  const std::shared_ptr<const View> old_view = view();
  const std::shared_ptr<const View> next = database_->moved(old_view, at ? *at : database_->head());
  Moved moved{next->at(), changes(*old_view, next->at())};
  if (config_.read_only) {
    std::lock_guard lock(mutex_);
    view_ = next;
    if (config_.size == 0) size_ = std::max(size_, wanted_size().with(*next));
    if (!moved.extents || !moved.extents->empty()) settled_ = false;
  } else {
    overlay()->move_view(next, moved.extents);
    if (!moved.extents) lost_write_ = false;
  }
  return moved;
}

void Device::settled() {
  std::lock_guard step(step_mutex_);
  if (config_.read_only) {
    std::lock_guard lock(mutex_);
    settled_ = true;
  } else {
    overlay()->settled();
  }
}

void Device::tidy() {
  if (!config_.read_only) overlay()->tidy();
}

std::uint64_t Device::close(Close how) {
  std::lock_guard step(step_mutex_);
  std::uint64_t dirty = 0;
  if (!config_.read_only) {
    const Overlay::Status status = overlay()->status();
    dirty = status.dirty_bytes + status.frozen_bytes;
    if (how == Close::kIfClean && dirty > 0) {
      throw Busy("device " + config_.name + " has " + std::to_string(dirty) +
                 " bytes of uncommitted writes");
    }
  }
  std::shared_ptr<Overlay> last;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_all();
    last = std::exchange(overlay_, nullptr);
    view_ = nullptr;
  }
  if (!last) return dirty;
  // Requests in progress finish on it; the next attach needs its directory free.
  const auto deadline = std::chrono::steady_clock::now() + kClosePatience;
  while (last.use_count() > 1 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  // A write that was in progress may have landed since: then its overlay stays for the next attach.
  const bool clean = last.use_count() == 1 && last->status().dirty_bytes == 0;
  if (how == Close::kDiscard || (how == Close::kIfClean && clean)) last->destroy();
  return dirty;
}

Overlay::Status Device::status() const {
  if (!config_.read_only) {
    Overlay::Status status = overlay()->status();
    std::lock_guard lock(mutex_);
    if (waiting_ > 0) status.full = full_;
    return status;
  }
  Overlay::Status status;
  status.at = status.base = view()->at();
  std::lock_guard lock(mutex_);
  status.settled = settled_;
  return status;
}

std::uint64_t Device::overlay_bytes_on_disk() const {
  return config_.read_only ? 0 : overlay()->bytes_on_disk();
}

// --- exports

std::string DeviceExport::description() const {
  return describe(device_->view()->volume()) + ", device " + device_->config().name;
}

ExtentList GrowingExport::data_extents(std::uint64_t offset, std::uint64_t length) const {
  const std::uint64_t end = DeviceExport::size();
  return offset < end ? DeviceExport::data_extents(offset, std::min(length, end - offset))
                      : ExtentList{};
}

void GrowingExport::check(std::uint64_t offset, std::uint64_t length) const {
  const std::uint64_t end = DeviceExport::size();
  if (offset <= end && length <= end - offset) return;
  throw Invalid(std::to_string(length) + " bytes at " + std::to_string(offset) +
                " are past the end of the device, which has " + std::to_string(end));
}

std::string FrozenExport::description() const {
  return "the commit under way of device " + device_->config().name;
}

void FrozenExport::read(std::uint64_t offset, std::span<std::byte> out) const {
  const std::shared_ptr<Overlay> overlay = device_->overlay();
  overlay->frozen()->read(offset, out);
}

ExtentList FrozenExport::data_extents(std::uint64_t offset, std::uint64_t length) const {
  const std::shared_ptr<Overlay> overlay = device_->overlay();
  return overlay->frozen()->dirty_extents(offset, length);
}

}  // namespace zbig
