// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "bigfile/extent.h"
#include "bigfile/view.h"
#include "nbdkit-plugin/padded_view.h"
#include "zodb/bytes.h"
#include "zodb/error.h"

// Export: what one connection of a client shows. Ranges lie within size(). Any thread.

namespace zbig {

class Export {
 public:
  virtual ~Export() = default;

  virtual std::uint64_t size() const = 0;
  virtual bool read_only() const { return true; }
  virtual std::string description() const = 0;
  // Several connections of one client show the same.
  virtual bool same_on_every_connection() const { return true; }

  virtual void read(std::uint64_t offset, std::span<std::byte> out) const = 0;
  // What a client has to copy; the rest reads as zeros (or, in a frozen export, is not dirty).
  virtual ExtentList data_extents(std::uint64_t offset, std::uint64_t length) const = 0;
  virtual void prefetch(std::uint64_t, std::uint64_t) const {}

  virtual void write(std::uint64_t, ByteView) { refuse(); }
  virtual void zero(std::uint64_t, std::uint64_t) { refuse(); }
  virtual void flush() {}

 private:
  [[noreturn]] static void refuse() { throw ReadOnly("write to a read-only export"); }
};

// A volume as of one tid, exactly as large as it is.
class ViewExport : public Export {
 public:
  ViewExport(std::shared_ptr<const View> view, bool same_on_every_connection)
      : view_(std::move(view)), same_on_every_connection_(same_on_every_connection) {}

  std::uint64_t size() const override { return view_->size(); }
  std::string description() const override;
  bool same_on_every_connection() const override { return same_on_every_connection_; }
  void read(std::uint64_t offset, std::span<std::byte> out) const override {
    view_->read(offset, out);
  }
  ExtentList data_extents(std::uint64_t offset, std::uint64_t length) const override {
    return padded_data_extents(*view_, offset, length);
  }
  void prefetch(std::uint64_t offset, std::uint64_t length) const override {
    view_->prefetch(offset, length);
  }

 private:
  const std::shared_ptr<const View> view_;
  const bool same_on_every_connection_;
};

// "ZBigArray <f8 (1000, 1000), blocks of 2097152 bytes"
std::string describe(const Volume& volume);

}  // namespace zbig
