// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>

#include "nbdkit-plugin/overlay.h"
#include "nbdkit-plugin/padded_view.h"
#include "zodb/error.h"

// Opening an overlay: what its directory says, checked before anything is changed in it.

namespace zbig {
namespace {

// Whichever file of a layer it is; nothing for other names.
std::optional<std::uint64_t> layer_of(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  const std::string stem = path.stem().string();
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(stem.data(), stem.data() + stem.size(), number);
  if ((extension != ".data" && extension != ".bits") || error != std::errc() ||
      end != stem.data() + stem.size()) {
    return std::nullopt;
  }
  return number;
}

std::vector<std::uint64_t> layers_in(const std::string& directory) {
  std::vector<std::uint64_t> numbers;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (const auto number = layer_of(entry.path())) numbers.push_back(*number);
  }
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  return numbers;
}

// Without a state file there can be no more than the empty layers of an overlay that was being made
// or removed when the server ended.
void check_no_writes_without_state(const std::string& directory,
                                   const std::vector<std::uint64_t>& layers) {
  for (const std::uint64_t number : layers) {
    const std::string path = directory + "/" + std::to_string(number) + ".bits";
    const std::optional<File> bits = File::open_if_there(path, O_RDONLY);
    if (bits && bits->next_data(PageBitmap::kHeaderBytes, bits->size())) {
      throw Corrupt(path + ": holds uncommitted writes, but the file 'state' beside it is missing");
    }
  }
}

File lock_directory(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error) throw_errno("make the overlay's directory " + directory, error.value());
  File file = File::open(directory, O_RDONLY | O_DIRECTORY);
  if (flock(file.fd(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) throw Busy("the overlay in " + directory + " is in use");
    throw_errno("lock " + directory, errno);
  }
  return file;
}

}  // namespace

OverlaySnapshot Overlay::load_layers(const std::string& directory, const OverlayState& state,
                                     std::uint64_t size) {
  const Layer::Trust trust =
      state.boot_id == boot_id() ? Layer::Trust::kLive : Layer::Trust::kDurable;
  const auto load = [&](const NamedLayer& named) {
    // O5: after a loss of power nothing of it was promised, and nothing of it can be trusted.
    if (!named.flushed && trust == Layer::Trust::kDurable) {
      return Layer::create(directory, named.number, size);
    }
    std::shared_ptr<Layer> layer = Layer::load(directory, named.number, size, trust);
    if (!layer) {
      throw Corrupt("layer " + std::to_string(named.number) + " of the overlay in " + directory +
                    " is missing");
    }
    return layer;
  };
  Snapshot snapshot;
  snapshot.bottom = load(state.bottom);
  snapshot.top = load(state.top);
  return snapshot;
}

std::unique_ptr<Overlay> Overlay::open(const std::string& directory, DeviceSize wanted,
                                       const ViewAt& view_at) {
  invariant((wanted.fixed | wanted.least) % kPageSize == 0, "a device is made of whole pages");
  File lock = lock_directory(directory);
  const std::vector<std::uint64_t> found = layers_in(directory);
  std::uint64_t next_layer = found.empty() ? 1 : found.back() + 1;
  std::optional<StateFile> state_file = StateFile::load(directory);

  Snapshot snapshot;
  bool dirty = false;
  OverlayState state;
  if (!state_file) {
    check_no_writes_without_state(directory, found);
  } else {
    state = state_file->state();
    snapshot = load_layers(directory, state, state.size);
    dirty = snapshot.dirty();
  }
  // No kernel's copies of pages survive a loss of power, so a clean overlay means nothing then.
  const bool means_something = dirty || (state_file && state.boot_id == boot_id());
  snapshot.view =
      view_at(means_something ? std::optional(Recorded{state.view, dirty}) : std::nullopt);
  const Tid at = snapshot.view->at();
  if (!means_something) state.view = state.base = at;
  // O7: where pages may be stale is not recorded, only that some may be.
  if (state.base != at || state.view != at) snapshot.stale.reset();
  state.view = at;
  state.base = snapshot.base = std::min(state.base, at);
  const std::uint64_t size = wanted.with(*snapshot.view);
  if (!dirty) {
    state.size = size;
    snapshot.bottom = Layer::create(directory, next_layer++, state.size);
    snapshot.top = Layer::create(directory, next_layer++, state.size);
    state.bottom = {snapshot.bottom->number(), false};
    state.top = {snapshot.top->number(), false};
  } else if (wanted.fixed != 0 && size < state.size) {
    throw Invalid("the overlay in " + directory + " holds uncommitted writes of a device of " +
                  std::to_string(state.size) + " bytes, not " + std::to_string(size));
  } else if (size > state.size) {
    state.size = size;
    state_file->save(state);  // O9
    state_file->sync();
    Snapshot larger = load_layers(directory, state, size);
    snapshot.bottom = std::move(larger.bottom);
    snapshot.top = std::move(larger.top);
  }
  state.boot_id = boot_id();
  if (state_file) {
    state_file->save(state);
  } else {
    state_file = StateFile::create(directory, state);
  }
  if (!snapshot.top->empty()) snapshot.phase = Phase::kUnfolded;

  const bool folded = snapshot.phase == Phase::kPlain;
  std::unique_ptr<Overlay> overlay(new Overlay(
      directory, wanted, std::move(lock), std::move(*state_file), next_layer, std::move(snapshot)));
  for (const std::uint64_t number : found) {
    if (number != state.bottom.number && number != state.top.number) {
      overlay->doomed_.push_back(number);
    }
  }
  {
    std::lock_guard lock(overlay->state_mutex_);
    overlay->sync_state();
  }
  try {
    // One layer more than is needed, so that a commit or an abort succeeds on a full disk.
    std::lock_guard control(overlay->control_mutex_);
    overlay->spare_ = overlay->new_layer();
  } catch (const NoSpace&) {
    // tidy() tries again.
  }
  if (!folded) {
    try {
      std::lock_guard control(overlay->control_mutex_);
      overlay->fold();
    } catch (const NoSpace&) {
      // The status says so; it is tried again at the next freeze.
    }
  }
  return overlay;
}

}  // namespace zbig
