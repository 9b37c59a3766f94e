// SPDX-License-Identifier: BSD-3-Clause
#include "nbdkit-plugin/overlay_state.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <fstream>

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include "zodb/error.h"

namespace zbig {
namespace {

constexpr std::uint64_t kSlotBytes = 512;
constexpr std::uint64_t kSlotDistance = 4096;  // no sector holds parts of both
constexpr std::string_view kMagic = "zbig overlay 1\n";

unsigned long checksum(std::string_view text) {
  return crc32(0, reinterpret_cast<const Bytef*>(text.data()), static_cast<uInt>(text.size()));
}

// Takes lines "NAME VALUE\n" off the front of a text.
class LineReader {
 public:
  explicit LineReader(std::string_view text) : rest_(text) {}

  std::string_view value(std::string_view name) {
    const std::size_t end = rest_.find('\n');
    if (end == std::string_view::npos) return fail();
    const std::string_view line = rest_.substr(0, end);
    if (!line.starts_with(name) || line.size() <= name.size() || line[name.size()] != ' ') {
      return fail();
    }
    rest_.remove_prefix(end + 1);
    return line.substr(name.size() + 1);
  }

  std::uint64_t number(std::string_view name) { return parse_number(value(name)); }

  Tid tid(std::string_view name) {
    const std::optional<Tid> tid = Tid::parse_hex(value(name));
    if (!tid) fail();
    return tid.value_or(kNoTid);
  }

  // "4" or "4 flushed".
  NamedLayer layer(std::string_view name) {
    std::string_view text = value(name);
    NamedLayer layer;
    constexpr std::string_view kFlushed = " flushed";
    if (text.ends_with(kFlushed)) {
      layer.flushed = true;
      text.remove_suffix(kFlushed.size());
    }
    layer.number = parse_number(text);
    return layer;
  }

  bool failed() const { return failed_; }

 private:
  std::string_view fail() {
    failed_ = true;
    return {};
  }
  std::uint64_t parse_number(std::string_view text) {
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size()) fail();
    return number;
  }

  std::string_view rest_;
  bool failed_ = false;
};

std::string layer_text(const NamedLayer& layer) {
  return std::to_string(layer.number) + (layer.flushed ? " flushed" : "");
}

}  // namespace

std::string format_slot(const OverlayState& state, std::uint64_t sequence) {
  std::string text(kMagic);
  text += "sequence " + std::to_string(sequence) + "\n";
  text += "size " + std::to_string(state.size) + "\n";
  text += "view " + state.view.hex() + "\n";
  text += "base " + state.base.hex() + "\n";
  text += "bottom " + layer_text(state.bottom) + "\n";
  text += "top " + layer_text(state.top) + "\n";
  text += "boot " + state.boot_id + "\n";
  text += "crc " + std::to_string(checksum(text)) + "\n";
  invariant(text.size() <= kSlotBytes, "a slot of an overlay's state is too long");
  text.resize(kSlotBytes);
  return text;
}

std::optional<Slot> parse_slot(std::string_view text) {
  const std::size_t crc = text.find("\ncrc ");
  if (!text.starts_with(kMagic) || crc == std::string_view::npos) return std::nullopt;
  LineReader tail(text.substr(crc + 1));
  if (tail.number("crc") != checksum(text.substr(0, crc + 1)) || tail.failed()) return std::nullopt;
  LineReader lines(text.substr(kMagic.size()));
  Slot slot;
  slot.sequence = lines.number("sequence");
  slot.state.size = lines.number("size");
  slot.state.view = lines.tid("view");
  slot.state.base = lines.tid("base");
  slot.state.bottom = lines.layer("bottom");
  slot.state.top = lines.layer("top");
  slot.state.boot_id = lines.value("boot");
  if (lines.failed()) return std::nullopt;
  return slot;
}

StateFile StateFile::create(const std::string& directory, const OverlayState& state) {
  const std::string path = directory + "/state";
  const std::string draft = path + ".new";
  File file = File::open(draft, O_RDWR | O_CREAT | O_TRUNC);
  file.resize(kSlotDistance + kSlotBytes);
  file.write(0, as_bytes(format_slot(state, 2)));
  file.write(kSlotDistance, as_bytes(format_slot(state, 1)));
  file.sync();
  if (rename(draft.c_str(), path.c_str()) != 0) throw_errno("rename " + draft, errno);
  File::open(directory, O_RDONLY | O_DIRECTORY).sync();
  return StateFile(std::move(file), Slot{state, 2}, 0);
}

std::optional<StateFile> StateFile::load(const std::string& directory) {
  std::optional<File> file = File::open_if_there(directory + "/state", O_RDWR);
  if (!file) return std::nullopt;
  if (file->size() != kSlotDistance + kSlotBytes) {
    throw Corrupt(file->path() + ": " + std::to_string(file->size()) + " bytes, where " +
                  std::to_string(kSlotDistance + kSlotBytes) + " are right");
  }
  std::optional<Slot> newest;
  std::uint64_t newest_at = 0;
  for (const std::uint64_t offset : {std::uint64_t{0}, kSlotDistance}) {
    std::string text(kSlotBytes, '\0');
    file->read(offset, std::as_writable_bytes(std::span(text)));
    std::optional<Slot> slot = parse_slot(text);
    if (!slot || (newest && slot->sequence < newest->sequence)) continue;
    newest = std::move(slot);
    newest_at = offset;
  }
  if (!newest) throw Corrupt(file->path() + ": both copies of the state are damaged");
  return StateFile(std::move(*file), std::move(*newest), newest_at);
}

void StateFile::write_slot() const {
  file_.write(offset_, as_bytes(format_slot(slot_.state, slot_.sequence)));
}

void StateFile::save(const OverlayState& state) {
  if (synced_) offset_ = kSlotDistance - offset_;
  synced_ = false;
  slot_ = Slot{state, slot_.sequence + 1};
  write_slot();
}

void StateFile::sync() {
  if (synced_) return;
  // The kernel drops what it failed to write, and the next sync would succeed without it.
  if (sync_failed_) write_slot();
  sync_failed_ = true;
  file_.datasync();
  sync_failed_ = false;
  synced_ = true;
}

std::string boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  // Where there is no /proc, no boot is the same as another: only what was flushed is trusted.
  return std::getline(file, id) ? id : "unknown-" + std::to_string(getpid());
}

}  // namespace zbig
