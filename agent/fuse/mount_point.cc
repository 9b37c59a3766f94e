// SPDX-License-Identifier: BSD-3-Clause
#include "agent/fuse/mount_point.h"

#include <cerrno>
#include <fstream>
#include <optional>
#include <sstream>

#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "agent/fd.h"
#include "agent/fuse/message.h"
#include "zodb/error.h"

namespace zbig::fuse {
namespace {

// The table writes space, tab, newline and backslash as \ooo.
std::string unescaped(const std::string& text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                 (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

// The type of what is mounted at `path`, the topmost if several are.
std::optional<std::string> mounted_type(const std::string& path) {
  std::ifstream table("/proc/self/mountinfo");
  std::optional<std::string> found;
  for (std::string line; std::getline(table, line);) {
    std::istringstream words(line);
    std::string word;
    for (int i = 0; i < 5; ++i) words >> word;
    if (unescaped(word) != path) continue;
    while (words >> word && word != "-") {
    }
    words >> word;
    found = word;
  }
  return found;
}

// Whether the file system at `path` has lost the process that served it. A living one answers at
// once, whatever becomes of its server. The kernel must be made to ask: it remembers attributes.
bool is_dead(const std::string& path) {
  struct statx attributes = {};
  return statx(AT_FDCWD, path.c_str(), AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &attributes) != 0 &&
         (errno == ENOTCONN || errno == ECONNABORTED);
}

// Runs fusermount3, which is root's on behalf of others; its exit status.
int run_fusermount(const std::string& path, bool lazily) {
  std::string words[] = {"fusermount3", "-u", "-q", "-z", "--", path};
  char* argv[7] = {};
  int count = 0;
  for (std::string& word : words) {
    if (word != "-z" || lazily) argv[count++] = word.data();
  }
  pid_t child = 0;
  const int error = posix_spawnp(&child, "fusermount3", nullptr, nullptr, argv, environ);
  if (error != 0) throw_errno("run fusermount3", error);
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return is_mounted(path) ? 1 : 0;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

}  // namespace

bool is_mounted(const std::string& path) { return mounted_type(path) == "fuse.zbig"; }

bool prepare_mount_point(const std::string& path) {
  while (const auto type = mounted_type(path)) {
    if (*type != "fuse.zbig" || !is_dead(path)) {
      throw Busy("mount at " + path + ": something of type " + *type + " is mounted there");
    }
    say("taking away the dead mount at " + path);
    unmount(path, true);
  }
  const Fd made(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (made) return true;
  if (errno != EEXIST) throw_errno("make " + path, errno);
  struct stat found = {};
  if (lstat(path.c_str(), &found) != 0) throw_errno("look at " + path, errno);
  if (!S_ISREG(found.st_mode) || found.st_size != 0) {
    throw Invalid("mount at " + path + ": it exists and is no empty file");
  }
  return false;
}

void unmount(const std::string& path, bool lazily) {
  if (umount2(path.c_str(), (lazily ? MNT_DETACH : 0) | UMOUNT_NOFOLLOW) == 0) return;
  if (errno == EBUSY) throw Busy("unmount " + path + ": a program has it open or mapped");
  if (errno != EPERM) throw_errno("unmount " + path, errno);
  if (run_fusermount(path, lazily) == 0) return;
  if (!lazily) throw Busy("unmount " + path + ": a program has it open or mapped");
  throw Failed("unmount " + path + ": fusermount3 failed");
}

}  // namespace zbig::fuse
