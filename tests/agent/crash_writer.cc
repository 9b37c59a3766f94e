// SPDX-License-Identifier: BSD-3-Clause

// A writer that does not trust the device, for tests that kill what is behind it.
//
//   crash_writer URI SEED IMAGE
//
// It writes random pages, each filled with its number and a version, flushes now and then, and
// keeps a model: of each page the version that was flushed last, and the one that was written last.
// When the server goes away it connects again, and reads everything: a page must hold one version,
// whole, not older than the flushed one (what was acknowledged is there) and not newer than the
// written one. Other programs may commit meanwhile; that changes no byte.
//
// At SIGTERM it flushes, checks once more, and writes to IMAGE what the device must hold. Prints
// how often it had to connect.

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <libnbd.h>

namespace {

constexpr std::size_t kPage = 4096;

volatile std::sig_atomic_t told_to_end = 0;

struct Closer {
  void operator()(nbd_handle* handle) const { nbd_close(handle); }
};
using Handle = std::unique_ptr<nbd_handle, Closer>;

struct Page {
  std::uint64_t flushed = 0;
  std::uint64_t written = 0;
};

// A page: (number, version) 256 times; version 0 is all zeros, as the volume was.
void fill(std::byte* page, std::uint64_t number, std::uint64_t version) {
  const std::uint64_t pair[2] = {version == 0 ? 0 : number + 1, version};
  for (std::size_t i = 0; i < kPage; i += sizeof pair) std::memcpy(page + i, pair, sizeof pair);
}

[[noreturn]] void die(const std::string& why) {
  std::cerr << "crash_writer: " << why << "\n";
  std::exit(1);
}

Handle connect(const std::string& uri, std::chrono::seconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  std::string reason;
  while (std::chrono::steady_clock::now() < deadline) {
    Handle handle(nbd_create());
    // Right after its start a server knows the volume, but the agent has not given it the device:
    // a read-only export of the same name.
    if (nbd_connect_uri(handle.get(), uri.c_str()) == 0 && nbd_is_read_only(handle.get()) == 0) {
      return handle;
    }
    const char* error = nbd_get_error();
    reason = error != nullptr ? error : "read-only";
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  die("no connection: " + reason);
}

class Writer {
 public:
  Writer(std::string uri, std::uint64_t seed) : uri_(std::move(uri)), random_(seed) {
    handle_ = connect(uri_, kPatience);
    pages_.resize(static_cast<std::size_t>(nbd_get_size(handle_.get())) / kPage);
    verify_all();
  }

  void run_until_told() {
    while (told_to_end == 0) {
      if (!(random_() % 16 == 0 ? flush() : write())) reconnect();
    }
    while (!flush()) reconnect();
    while (!verify_all()) reconnect();
  }

  void save(const std::string& path) const {
    std::vector<std::byte> page(kPage);
    std::ofstream out(path, std::ios::binary);
    for (std::size_t i = 0; i < pages_.size(); ++i) {
      fill(page.data(), i, pages_[i].written);
      out.write(reinterpret_cast<const char*>(page.data()), kPage);
    }
    if (!out.flush()) die(path + ": the write failed");
  }

  unsigned connections() const { return connections_; }

 private:
  static constexpr std::chrono::seconds kPatience{30};

  bool write() {
    const std::size_t count = 1 + random_() % 16;
    const std::size_t first = random_() % (pages_.size() - count + 1);
    std::vector<std::byte> data(count * kPage);
    const std::uint64_t version = ++version_;
    for (std::size_t i = 0; i < count; ++i) {
      fill(data.data() + i * kPage, first + i, version);
      pages_[first + i].written = version;  // from now on it may be there
    }
    return nbd_pwrite(handle_.get(), data.data(), data.size(), first * kPage, 0) == 0;
  }

  bool flush() {
    if (nbd_flush(handle_.get(), 0) != 0) return false;
    for (Page& page : pages_) page.flushed = page.written;
    return true;
  }

  void reconnect() {
    do {
      ++connections_;
      handle_ = connect(uri_, kPatience);
    } while (!verify_all());
  }

  // False if the server went away in the middle.
  bool verify_all() {
    constexpr std::size_t kRun = 256;
    std::vector<std::byte> data(kRun * kPage);
    std::vector<std::byte> wanted(kPage);
    for (std::size_t first = 0; first < pages_.size(); first += kRun) {
      const std::size_t count = std::min(kRun, pages_.size() - first);
      if (nbd_pread(handle_.get(), data.data(), count * kPage, first * kPage, 0) != 0) return false;
      for (std::size_t i = 0; i < count; ++i) {
        const std::byte* got = data.data() + i * kPage;
        std::uint64_t pair[2];
        std::memcpy(pair, got, sizeof pair);
        Page& page = pages_[first + i];
        fill(wanted.data(), first + i, pair[1]);
        const std::string where = "page " + std::to_string(first + i);
        if (std::memcmp(got, wanted.data(), kPage) != 0)
          die(where + " is torn or of another place");
        if (pair[1] < page.flushed) {
          die(where + " is lost: version " + std::to_string(pair[1]) + ", flushed was " +
              std::to_string(page.flushed));
        }
        if (pair[1] > page.written) die(where + " was never written so");
        // What a crash took of what was not flushed stays away.
        page.written = pair[1];
      }
    }
    return true;
  }

  std::string uri_;
  std::mt19937_64 random_;
  Handle handle_;
  std::vector<Page> pages_;
  std::uint64_t version_ = 0;
  unsigned connections_ = 1;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) die("usage: crash_writer URI SEED IMAGE");
  std::signal(SIGTERM, [](int) { told_to_end = 1; });
  Writer writer(argv[1], std::strtoull(argv[2], nullptr, 10));
  writer.run_until_told();
  writer.save(argv[3]);
  std::cout << writer.connections() << " connections\n";
}
