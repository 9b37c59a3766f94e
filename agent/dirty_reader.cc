// SPDX-License-Identifier: BSD-3-Clause
#include "agent/dirty_reader.h"

#include <cerrno>
#include <optional>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "zodb/error.h"

namespace zbig {
namespace {

[[noreturn]] void fail(const std::string& device, const std::string& what) {
  throw Failed("the server's reply about the frozen writes of device " + device + ": " + what);
}

// Adds the extents of a reply; returns where to ask for more, if it does not tell of all.
std::optional<std::uint64_t> take_extents(const Json& reply, const std::string& device,
                                          ExtentList& extents) {
  const auto list = reply.find("extents");
  if (list == reply.end() || !list->is_array()) fail(device, "no extents");
  for (const Json& item : *list) {
    if (!item.is_array() || item.size() != 2 || !item[0].is_number_unsigned() ||
        !item[1].is_number_unsigned()) {
      fail(device, "an extent that is no [offset, length]");
    }
    const Extent extent{item[0].get<std::uint64_t>(), item[1].get<std::uint64_t>()};
    const std::uint64_t least = extents.empty() ? 0 : extents.back().end();
    if (extent.offset < least || extent.length == 0 || extent.end() < extent.offset) {
      fail(device, "extents that do not ascend");
    }
    append_extent(extents, extent.offset, extent.length);
  }
  const auto next = reply.find("next");
  if (next == reply.end()) return std::nullopt;
  const std::uint64_t least = extents.empty() ? 0 : extents.back().end();
  if (!next->is_number_unsigned() || next->get<std::uint64_t>() < least) {
    fail(device, "extents that do not ascend");
  }
  return next->get<std::uint64_t>();
}

}  // namespace

DirtyReader DirtyReader::freeze(const Server& server, const std::string& device) {
  Fd file;
  const Json reply = server.request({{"op", "freeze"}, {"device", device}}, file);
  try {
    const auto base = Tid::parse_hex(reply.value("at", ""));
    if (!base) fail(device, "no tid in at");
    if (!file) fail(device, "no file came with it");
    ExtentList extents;
    auto next = take_extents(reply, device, extents);
    while (next) {
      const Json more = server.request({{"op", "frozen"}, {"device", device}, {"from", *next}});
      const auto after = take_extents(more, device, extents);
      if (after && *after <= *next) fail(device, "extents that do not ascend");
      next = after;
    }
    return {device, *base, std::move(file), std::move(extents)};
  } catch (...) {
    server.request({{"op", "unfreeze"}, {"device", device}});
    throw;
  }
}

DirtyReader::DirtyReader(std::string device, Tid base, Fd file, ExtentList extents)
    : device_(std::move(device)),
      base_(base),
      file_(std::move(file)),
      extents_(std::move(extents)),
      total_bytes_(total_length(extents_)) {}

void DirtyReader::end_at(std::uint64_t end) {
  extents_ = clipped(extents_, 0, end);
  total_bytes_ = total_length(extents_);
}

void DirtyReader::read(std::uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t n = ::pread(file_.get(), out.data(), out.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    const std::string what =
        n > 0 ? ""
              : "read the frozen writes of device " + device_ + " at " + std::to_string(offset);
    if (n < 0) throw_errno(what, errno);
    if (n == 0) throw Failed(what + ": the overlay's file ends there");
    offset += static_cast<std::uint64_t>(n);
    out = out.subspan(static_cast<std::size_t>(n));
  }
}

}  // namespace zbig
