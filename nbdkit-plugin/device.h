// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "nbdkit-plugin/export.h"
#include "nbdkit-plugin/overlay.h"
#include "nbdkit-plugin/served_database.h"

// Device: a volume that the agent attached. It shows one view and, if it is writable, the overlay
// above it. Every connection to its export shares it, so each sees what another wrote as soon as
// that was answered (NBD's multi-conn).
//
// The steps that move it (docs/control-protocol.md) first do all that takes time (asking the
// database what changed, making the next view) and then swap one pointer, here or in the overlay.
//
// Threads: any. After close() whatever is asked of it fails.

namespace zbig {

struct DeviceConfig {
  std::string name;
  std::string export_name;
  std::string volume;
  std::optional<Tid> at;    // nothing: the head
  bool resume = false;      // at the view that the overlay had last, if it still means something
  std::uint64_t size = 0;   // asked for; 0: it grows with its volume, and has
  std::uint64_t least = 0;  // so many bytes already
  bool read_only = false;
  bool wait_for_room = false;  // of writes that find the overlay's disk full; otherwise they fail
  std::string overlay;         // a directory; empty if read-only
};

// What a move of the view changed, for whoever keeps copies of pages.
struct Moved {
  Tid at;
  std::optional<ExtentList> extents;  // nothing: anywhere
};

class Device {
 public:
  // Throws NotFound, Invalid (a size below that of the volume), and what Overlay::open throws.
  Device(DeviceConfig config, std::shared_ptr<ServedDatabase> database);

  const DeviceConfig& config() const { return config_; }
  std::uint64_t size() const;

  // --- what a client does
  void read(std::uint64_t offset, std::span<std::byte> out) const;
  ExtentList data_extents(std::uint64_t offset, std::uint64_t length) const;
  void prefetch(std::uint64_t offset, std::uint64_t length) const;
  void write(std::uint64_t offset, ByteView bytes);
  void zero(std::uint64_t offset, std::uint64_t length);
  void flush();
  std::shared_ptr<const View> view() const;

  // --- what the agent does; each waits for the one before it
  struct Frozen {
    Tid base;
    ExtentList extents;
    // Has the bytes of each extent at its own offset, and stands still until the next step.
    std::shared_ptr<const File> file;
  };
  Frozen freeze();
  // Of what is frozen: what lies at `from` and behind. Throws Busy if nothing is.
  ExtentList frozen_extents(std::uint64_t from) const;
  void unfreeze();
  Moved committed(Tid at, bool stored);
  Moved abort();
  Moved refresh(std::optional<Tid> at);
  // Nobody has copies of pages of before the last move.
  void settled();
  // `stale`: that newer states can not be learned of, and the agent does not take the view for the
  // present any more. Then reads fail, unless there are uncommitted writes: whoever made them works
  // on this view, as long as it takes.
  void set_stale(bool stale) { stale_ = stale; }
  bool stale() const { return stale_; }
  // Leaves to the overlay what need not be waited for.
  void tidy();

  enum class Close { kIfClean, kKeep, kDiscard };
  // Throws Busy (and stays) for kIfClean if there are uncommitted writes. Returns how many bytes of
  // them there were.
  std::uint64_t close(Close how);

  Overlay::Status status() const;
  std::uint64_t overlay_bytes_on_disk() const;
  // Throws ReadOnly if there is none, Failed if the device is closed.
  std::shared_ptr<Overlay> overlay() const;

 private:
  std::shared_ptr<const View> first_view(std::optional<Overlay::Recorded> recorded) const;
  // Runs a write, again and again while there is no room for it. Nothing is held meanwhile, so that
  // a commit, an abort (which make room) and a detach go on. Throws Failed once it is closed.
  template <class Write>
  void with_room(Write write);
  std::optional<ExtentList> changes(const View& from, Tid to) const;
  DeviceSize wanted_size() const;
  void refuse_stale_read() const;

  const DeviceConfig config_;
  const std::shared_ptr<ServedDatabase> database_;
  std::atomic<bool> stale_ = false;
  // A write failed. The kernel shows still what was to be written, and takes it for what is here:
  // with the next move of the view all its pages have to go.
  std::atomic<bool> lost_write_ = false;

  std::mutex step_mutex_;  // one step of the agent at a time

  mutable std::mutex mutex_;
  std::condition_variable changed_;   // closed_
  std::uint64_t waiting_ = 0;         // writers, for room; guarded by mutex_, as is the next
  std::string full_;                  // what the last of them was told
  bool closed_ = false;               // guarded by mutex_, and so is all below
  std::shared_ptr<Overlay> overlay_;  // null if read-only
  std::shared_ptr<const View> view_;  // of a read-only device, and so are the next
  std::uint64_t size_ = 0;            // likewise
  bool settled_ = false;
};

class DeviceExport : public Export {
 public:
  explicit DeviceExport(std::shared_ptr<Device> device) : device_(std::move(device)) {}

  std::uint64_t size() const override { return device_->size(); }
  bool read_only() const override { return device_->config().read_only; }
  std::string description() const override;
  void read(std::uint64_t offset, std::span<std::byte> out) const override {
    device_->read(offset, out);
  }
  ExtentList data_extents(std::uint64_t offset, std::uint64_t length) const override {
    return device_->data_extents(offset, length);
  }
  void prefetch(std::uint64_t offset, std::uint64_t length) const override {
    device_->prefetch(offset, length);
  }
  void write(std::uint64_t offset, ByteView bytes) override { device_->write(offset, bytes); }
  void zero(std::uint64_t offset, std::uint64_t length) override { device_->zero(offset, length); }
  void flush() override { device_->flush(); }

 private:
  const std::shared_ptr<Device> device_;
};

// A device as a kernel reaches it that can change the size of its block device, but not the
// connection which it made: NBD tells a size once. So this one tells one that no device has, and
// the kernel is told the true one by the agent, at attach and whenever the device grows.
class GrowingExport : public DeviceExport {
 public:
  using DeviceExport::DeviceExport;

  std::uint64_t size() const override { return std::uint64_t{1} << 62; }
  void read(std::uint64_t offset, std::span<std::byte> out) const override {
    check(offset, out.size());
    DeviceExport::read(offset, out);
  }
  ExtentList data_extents(std::uint64_t offset, std::uint64_t length) const override;
  void prefetch(std::uint64_t offset, std::uint64_t length) const override {
    check(offset, length);
    DeviceExport::prefetch(offset, length);
  }
  void write(std::uint64_t offset, ByteView bytes) override {
    check(offset, bytes.size());
    DeviceExport::write(offset, bytes);
  }
  void zero(std::uint64_t offset, std::uint64_t length) override {
    check(offset, length);
    DeviceExport::zero(offset, length);
  }

 private:
  // Throws Invalid.
  void check(std::uint64_t offset, std::uint64_t length) const;
};

// A device's frozen writes: `data` exactly where they are. Each request asks what is frozen at that
// moment (and fails if nothing is), so that the agent connects once and not for each commit.
class FrozenExport : public Export {
 public:
  explicit FrozenExport(std::shared_ptr<Device> device) : device_(std::move(device)) {}

  std::uint64_t size() const override { return device_->size(); }
  std::string description() const override;
  void read(std::uint64_t offset, std::span<std::byte> out) const override;
  ExtentList data_extents(std::uint64_t offset, std::uint64_t length) const override;

 private:
  const std::shared_ptr<Device> device_;
};

}  // namespace zbig
