// SPDX-License-Identifier: BSD-3-Clause

// An overlay whose files were damaged: it opens or says why not, and what opens can be used.
//
// Input: the text of the state ("view ..." and so on, up to a zero byte; nothing: as it was), to
// which a checksum is added; then changes of the files, four bytes each: which file, where in it
// (two bytes, in 65536ths of its size), a byte to exclusive-or, or 0 to cut the file there.

#include <zlib.h>

#include "fuzz/place.h"
#include "nbdkit-plugin/overlay.h"
#include "tests/support/buffer_view.h"

namespace {

using namespace zbig;

constexpr std::uint64_t kSize = 40 * kPageSize;

std::unique_ptr<Overlay> open(const std::string& directory) {
  static const auto view = BufferView::of_pattern(Tid{0x1000}, kSize, 0);
  return Overlay::open(directory, {.fixed = kSize, .least = 0},
                       [](std::optional<Overlay::Recorded>) { return view; });
}

// Killed in the middle of a commit: both layers hold something.
void make(const std::string& directory) {
  const auto overlay = open(directory);
  const Bytes bytes(3 * kPageSize, std::byte{7});
  overlay->write(5 * kPageSize, bytes);
  overlay->flush();
  overlay->freeze();
  overlay->write(6 * kPageSize, bytes);
}

void use(const std::string& directory) {
  const auto overlay = open(directory);
  const std::uint64_t size = overlay->size();
  invariant(size == kSize, "an overlay has the size that it was opened with");
  Bytes all(size);
  overlay->read(0, all);
  overlay->data_extents(0, size);
  const Bytes bytes(1000, std::byte{9});
  overlay->write(4000, bytes);
  std::copy(bytes.begin(), bytes.end(), all.begin() + 4000);
  overlay->flush();
  overlay->freeze();
  overlay->zero(0, kPageSize);
  Bytes again(size);
  overlay->frozen()->read(0, again);
  invariant(again == all, "what was frozen is what was there");
  overlay->unfreeze();
  std::fill_n(all.begin(), kPageSize, std::byte{0});
  overlay->read(0, again);
  invariant(again == all, "what is there is what was written");
  overlay->tidy();
}

void change(const std::string& directory, std::span<const std::uint8_t> input) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(directory))
    files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (; input.size() >= 4; input = input.subspan(4)) {
    const auto& file = files[input[0] % files.size()];
    const std::uint64_t place =
        std::filesystem::file_size(file) * (input[1] | std::uint64_t{input[2]} << 8) >> 16;
    if (input[3] == 0) {
      std::filesystem::resize_file(file, place);
      continue;
    }
    std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
    stream.seekg(static_cast<std::streamoff>(place));
    const auto byte = static_cast<std::uint8_t>(stream.get());
    stream.clear();
    stream.seekp(static_cast<std::streamoff>(place));
    stream.put(static_cast<char>(byte ^ input[3]));
  }
}

void write_state(const std::string& directory, std::string text) {
  text = "zbig overlay 1\n" + text + "\n";
  const auto crc =
      crc32(0, reinterpret_cast<const Bytef*>(text.data()), static_cast<uInt>(text.size()));
  text += "crc " + std::to_string(crc) + "\n";
  text.resize(4096);
  text += text.substr(0, 512);
  Place::put(directory + "/state", as_bytes(text));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Place place;
  place.clear();
  const auto directory = place / "overlay";
  make(directory);
  const std::span<const std::uint8_t> input(data, size);
  const auto end = std::find(input.begin(), input.end(), 0);
  const std::string state(input.begin(), end);
  if (!state.empty() && state.size() < 400) write_state(directory, state);
  if (end != input.end()) change(directory, {end + 1, input.end()});
  try {
    use(directory);
    use(directory);
  } catch (const Error&) {
  }
  return 0;
}
