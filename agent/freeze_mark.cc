// SPDX-License-Identifier: BSD-3-Clause
#include "agent/freeze_mark.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <sstream>
#include <vector>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/files.h"
#include "agent/log.h"
#include "agent/mounts.h"
#include "zodb/error.h"

namespace zbig {
namespace {

constexpr std::size_t kMaxMark = 1u << 20;
constexpr std::string_view kFileSystemWord = "fs ";
constexpr std::string_view kCgroupWord = "cgroup ";

}  // namespace

FreezeMark::FreezeMark(std::string path, const std::string& lines) : path_(std::move(path)) {
  write_file_atomically(path_, lines);
  fd_ = Fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd_) throw_errno("open " + path_, errno);
}

FreezeMark FreezeMark::found(std::string path) {
  FreezeMark mark;
  mark.fd_ = Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  mark.path_ = std::move(path);
  return mark;
}

std::string FreezeMark::line_of_cgroup(const std::string& path) {
  return std::string(kCgroupWord) + path + "\n";
}

std::string FreezeMark::line_of_file_system(const std::string& escaped_mount_point) {
  return std::string(kFileSystemWord) + escaped_mount_point + "\n";
}

void FreezeMark::remove() const noexcept {
  struct stat ours = {};
  // One that took its place has left it without a name.
  if (::fstat(fd_.get(), &ours) == 0 && ours.st_nlink > 0) ::unlink(path_.c_str());
}

void thaw_marked(const std::string& path) noexcept {
  try {
    const FreezeMark mark = FreezeMark::found(path);
    if (!mark) return;
    std::vector<std::string> mount_points;
    std::istringstream lines(read_small_file(path, kMaxMark));
    for (std::string line; std::getline(lines, line);) {
      log_line("thawing what a commit left frozen: " + line);
      if (line.starts_with(kCgroupWord)) {
        const std::string file = line.substr(kCgroupWord.size()) + "/cgroup.freeze";
        const Fd fd(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
        if (fd && ::write(fd.get(), "0", 1) != 1) log_line("thaw " + file + ": it does not");
      } else if (line.starts_with(kFileSystemWord)) {
        mount_points.push_back(unescaped(line.substr(kFileSystemWord.size())));
      }
    }
    if (mount_points.empty()) return mark.remove();
    start_process([&] {
      close_all_but({mark.fd()});
      for (const std::string& mount_point : mount_points) {
        const int fd = ::open(mount_point.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        // EINVAL: it is not frozen.
        if (fd >= 0) ::ioctl(fd, FITHAW, 0);
      }
      mark.remove();
      ::_exit(0);
    });
  } catch (const std::exception& error) {
    log_line("thawing what " + path + " tells: " + error.what());
  }
}

void start_process(const std::function<void()>& work) {
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  // Two forks, so that nobody has to wait for its end.
  const pid_t between = ::fork();
  const int fork_error = errno;
  if (between == 0) {
    ::setsid();
    const pid_t child = ::fork();
    if (child != 0) ::_exit(child > 0 ? 0 : 1);
    work();
    ::_exit(1);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (between < 0) throw_errno("start a process", fork_error);
  int status = 0;
  while (::waitpid(between, &status, 0) < 0 && errno == EINTR) {
  }
  if (status != 0) throw Failed("start a process: there are too many");
}

void close_all_but(const std::vector<int>& kept) noexcept {
  unsigned from = 0;
  for (const int fd : kept) {
    const auto keep = static_cast<unsigned>(fd);
    if (keep > from) ::close_range(from, keep - 1, 0);
    from = keep + 1;
  }
  ::close_range(from, ~0U, 0);
}

}  // namespace zbig
