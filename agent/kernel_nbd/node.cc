// SPDX-License-Identifier: BSD-3-Clause
#include "agent/kernel_nbd/node.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/fd.h"
#include "zodb/error.h"

namespace zbig {
namespace {

namespace fs = std::filesystem;

constexpr auto kLinks = "/dev/zbig";
constexpr auto kProperties = "/run/zbig/udev";
// How long udev may take with an event before it is taken for dead.
constexpr std::chrono::milliseconds kUdevPatience{2000};

std::string sysfs_path(std::uint32_t index, const std::string& file) {
  return "/sys/block/nbd" + std::to_string(index) + "/" + file;
}

// The device number sysfs has for the index.
std::optional<dev_t> device_number(std::uint32_t index) {
  const auto text = sysfs_read(index, "dev");
  unsigned number_major = 0, number_minor = 0;
  if (!text || std::sscanf(text->c_str(), "%u:%u", &number_major, &number_minor) != 2) {
    return std::nullopt;
  }
  return makedev(number_major, number_minor);
}

// Whether somebody listens: the name of its socket stays when it ends.
bool udev_runs() {
  constexpr std::string_view kControl = "/run/udev/control";
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  kControl.copy(address.sun_path, kControl.size());
  const Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return fd &&
         ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

// Polls, since neither devtmpfs nor udev tells when it is done.
template <class Predicate>
bool wait_for(Predicate there, Deadline deadline) {
  while (!there()) {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

Deadline udev_deadline(Deadline deadline) {
  return udev_runs() ? std::min(deadline, deadline_in(kUdevPatience))
                     : std::chrono::steady_clock::now();
}

std::string link_path(const std::string& name) { return std::string(kLinks) + "/" + name; }

// What a link leads to, as an index of nbd.
std::optional<std::uint32_t> link_target(const std::string& link) {
  std::error_code error;
  const fs::path node = fs::read_symlink(link, error);
  return error ? std::nullopt : nbd_index_of(node.filename());
}

// Values stand between double quotes, which udev does not let us escape.
std::string quoted(const std::string& value) {
  std::string result = "\"";
  for (const char c : value) {
    std::array<char, 4> escaped = {};
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f || c == '"' || c == '%') {
      std::snprintf(escaped.data(), escaped.size(), "%%%02X", byte);
      result += escaped.data();
    } else {
      result += c;
    }
  }
  return result + "\"";
}

void replace_file(const std::string& path, const std::string& text) {
  const std::string fresh = path + ".new";
  std::ofstream file(fresh, std::ios::trunc);
  file << text;
  file.close();
  if (!file) throw Failed("write " + fresh);
  if (::rename(fresh.c_str(), path.c_str()) != 0) throw_errno("write " + path, errno);
}

std::string properties_path(const std::string& identifier) {
  return std::string(kProperties) + "/" + identifier + ".env";
}

}  // namespace

bool valid_link_name(const std::string& name) {
  constexpr std::string_view kMarks = "._-+=@";
  return !name.empty() && name.size() <= 64 && name[0] != '.' &&
         std::all_of(name.begin(), name.end(), [&](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  kMarks.find(c) != std::string_view::npos;
         });
}

std::optional<std::string> sysfs_read(std::uint32_t index, const std::string& file) {
  const Fd fd(::open(sysfs_path(index, file).c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> buffer;
  const ssize_t length = fd ? ::read(fd.get(), buffer.data(), buffer.size()) : -1;
  if (length < 0) return std::nullopt;
  std::string text(buffer.data(), static_cast<std::size_t>(length));
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

void sysfs_write(std::uint32_t index, const std::string& file, const std::string& value) {
  const std::string path = sysfs_path(index, file);
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd || ::write(fd.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size())) {
    throw_errno("write " + value + " to " + path, errno);
  }
}

bool sysfs_attached(std::uint32_t index) {
  return ::access(sysfs_path(index, "pid").c_str(), F_OK) == 0;
}

std::optional<std::uint32_t> sysfs_find(const std::string& identifier) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/sys/block", error)) {
    const auto index = nbd_index_of(entry.path().filename());
    if (index && sysfs_attached(*index) && sysfs_read(*index, "backend") == identifier) {
      return index;
    }
  }
  return std::nullopt;
}

std::vector<std::string> sysfs_partitions(std::uint32_t index) {
  std::vector<std::string> result;
  const std::string prefix = "nbd" + std::to_string(index) + "p";
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(sysfs_path(index, ""), error)) {
    if (entry.path().filename().string().starts_with(prefix)) {
      result.push_back(entry.path().filename());
    }
  }
  return result;
}

bool sysfs_remembers_write_zeroes(std::uint32_t index) {
  return sysfs_read(index, "queue/write_zeroes_max_bytes").value_or("0") != "0";
}

std::vector<std::uint32_t> sysfs_unspoilt_indices() {
  constexpr int kFresh = 4;
  std::vector<std::uint32_t> result;
  int fresh = 0;
  for (std::uint32_t index = 0; fresh < kFresh; ++index) {
    const bool exists = ::access(sysfs_path(index, "").c_str(), F_OK) == 0;
    if (!exists) ++fresh;
    if (!exists || (!sysfs_attached(index) && !sysfs_remembers_write_zeroes(index))) {
      result.push_back(index);
    }
  }
  return result;
}

std::optional<std::uint32_t> nbd_index_of(const std::string& name) {
  constexpr std::string_view kStart = "nbd";
  std::uint32_t index = 0;
  if (!name.starts_with(kStart)) return std::nullopt;
  const char* const end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + kStart.size(), end, index);
  return error == std::errc() && rest == end ? std::optional(index) : std::nullopt;
}

std::string node_path(std::uint32_t index) { return "/dev/nbd" + std::to_string(index); }

void ensure_node(std::uint32_t index, Deadline deadline) {
  const std::string node = node_path(index);
  const auto number = device_number(index);
  if (!number) throw Failed("attach " + node + ": the kernel has no such device");
  struct stat info {};
  const auto there = [&] { return ::lstat(node.c_str(), &info) == 0; };
  if (!wait_for(there, udev_deadline(deadline)) &&
      ::mknod(node.c_str(), S_IFBLK | 0660, *number) != 0 && errno != EEXIST) {
    throw_errno("make the node " + node, errno);
  }
  if (!there() || !S_ISBLK(info.st_mode) || info.st_rdev != *number) {
    throw Failed("attach " + node + ": what has that name is not the device");
  }
}

void publish_properties(const std::string& identifier, const UdevProperties& properties) {
  std::string text = "ZBIG_NAME=" + quoted(properties.name) + "\n";
  for (const auto& [key, value] : properties.more) text += key + "=" + quoted(value) + "\n";
  std::error_code error;
  fs::create_directories(kProperties, error);
  replace_file(properties_path(identifier), text);
}

void withdraw_properties(const std::string& identifier) {
  ::unlink(properties_path(identifier).c_str());
}

std::string ensure_link(const std::string& name, std::uint32_t index, Deadline deadline) {
  const std::string link = link_path(name);
  const auto ours = [&] { return link_target(link) == index; };
  if (wait_for(ours, udev_deadline(deadline))) return link;
  if (const auto other = link_target(link); other && sysfs_attached(*other)) {
    throw Busy("make " + link + ": it names " + node_path(*other));
  }
  std::error_code error;
  fs::create_directory(kLinks, error);
  const std::string fresh = link + "." + std::to_string(::getpid());
  if (::symlink(("../nbd" + std::to_string(index)).c_str(), fresh.c_str()) != 0 ||
      ::rename(fresh.c_str(), link.c_str()) != 0) {
    const int why = errno;
    ::unlink(fresh.c_str());
    throw_errno("make the link " + link, why);
  }
  return link;
}

void remove_link(const std::string& name, std::uint32_t index, Deadline deadline) {
  const std::string link = link_path(name);
  const auto gone = [&] { return link_target(link) != index; };
  if (!wait_for(gone, udev_deadline(deadline))) ::unlink(link.c_str());
  ::rmdir(kLinks);  // the last link takes the folder with it
}

}  // namespace zbig
