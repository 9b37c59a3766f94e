// SPDX-License-Identifier: BSD-3-Clause
//
// zbig-fuse: an NBD export as a file that programs map, read and write. See docs/man/zbig-fuse.pod
// for its use, and service.h for how it works.

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/fd.h"
#include "agent/fuse/message.h"
#include "agent/fuse/options.h"
#include "agent/fuse/service.h"
#include "zodb/error.h"

namespace zbig::fuse {
namespace {

constexpr char kReady = 'r';

void redirect(const char* path, int flags, int to) {
  const Fd file(open(path, flags | O_CLOEXEC, 0600));
  if (!file) throw_errno(path, errno);
  if (dup2(file.get(), to) < 0) throw_errno(path, errno);
}

// Of docs/errors.md.
int exit_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalid:
      return 2;
    case ErrorCode::kConflict:
      return 3;
    case ErrorCode::kNotFound:
      return 4;
    case ErrorCode::kBusy:
      return 5;
    case ErrorCode::kUnavailable:
      return 6;
    case ErrorCode::kCorrupt:
      return 7;
    default:
      return 1;
  }
}

int serve(const Options& options, const std::function<void()>& ready) {
  try {
    if (!options.log.empty()) redirect(options.log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 2);
    Service(options).run(ready);
    return 0;
  } catch (const Error& error) {
    say(error.what());
    return exit_status(error.code());
  } catch (const std::exception& error) {
    say(error.what());
    return 1;
  }
}

// The parent stays until programs can use the device, and tells by its exit status whether they
// can. The child is in a session of its own, so that no terminal and no parent takes it along.
int serve_in_background(const Options& options) {
  int ends[2] = {-1, -1};
  if (pipe2(ends, O_CLOEXEC) != 0) throw_errno("pipe", errno);
  Fd from_child(ends[0]);
  Fd to_parent(ends[1]);
  const pid_t child = fork();
  if (child < 0) throw_errno("fork", errno);
  if (child == 0) {
    from_child.reset();
    setsid();
    return serve(options, [&] {
      if (chdir("/") != 0) throw_errno("/", errno);
      redirect("/dev/null", O_RDWR, STDIN_FILENO);
      redirect("/dev/null", O_RDWR, STDOUT_FILENO);
      if (options.log.empty()) redirect("/dev/null", O_RDWR, STDERR_FILENO);
      if (write(to_parent.get(), &kReady, 1) != 1) throw_errno("tell the parent", errno);
      to_parent.reset();
    });
  }
  to_parent.reset();
  char word = 0;
  if (read(from_child.get(), &word, 1) == 1 && word == kReady) return 0;
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

}  // namespace
}  // namespace zbig::fuse

int main(int argc, char** argv) {
  using namespace zbig::fuse;
  try {
    const Options options = parse_options(argc, argv);
    return options.foreground ? serve(options, [] {}) : serve_in_background(options);
  } catch (const zbig::Error& error) {
    say(error.what());
    return exit_status(error.code());
  } catch (const std::exception& error) {
    say(error.what());
    return 1;
  }
}
