// SPDX-License-Identifier: BSD-3-Clause
#include "tests/race/python_writer.h"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <thread>

#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>

namespace zbig::race {
namespace {

constexpr timeval kPatience{.tv_sec = 120, .tv_usec = 0};

}  // namespace

Answerer::Answerer(const std::vector<std::string>& command) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    throw std::system_error(errno, std::generic_category(), "socketpair");
  }
  socket_ = Fd(ends[0]);
  const Fd theirs(ends[1]);
  ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, theirs.get(), 0);
  ::posix_spawn_file_actions_adddup2(&actions, theirs.get(), 1);
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  const int error = ::posix_spawnp(&pid_, words[0], &actions, nullptr, words.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::system_error(error, std::generic_category(), command.front());
}

Answerer::~Answerer() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

std::string Answerer::ask(const std::string& line) {
  const std::string question = line + "\n";
  if (::send(socket_.get(), question.data(), question.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(question.size())) {
    throw std::runtime_error("the Python program ended before: " + line);
  }
  std::string answer;
  while (!answer.ends_with('\n')) {
    char piece[4096];
    const ssize_t n = ::recv(socket_.get(), piece, sizeof piece, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw std::runtime_error("the Python program has no answer to: " + line);
    answer.append(piece, static_cast<std::size_t>(n));
  }
  answer.pop_back();
  return answer;
}

PythonWriter::PythonWriter(const Arena& arena, const std::vector<std::string>& command,
                           unsigned seed)
    : Actor(arena, {}, true, seed), python_(command) {}

void PythonWriter::transaction() {
  const unsigned group = below(arena_.layout.groups);
  std::string where;
  for (const Place& place : arena_.layout.places(group)) {
    where += " " + std::to_string(place.volume) + ":" + std::to_string(place.offset);
  }
  const std::string tid = python_.ask("begin");
  std::istringstream words(python_.ask("read" + where));
  Word found;
  words >> found.value;
  for (Word word; words >> word.value;) {
    if (word != found) {
      throw Violation("torn at " + tid + ": Python reads " + found.text() + " and " + word.text());
    }
  }
  arena_.ledger->seen(found, true, "Python");
  arena_.ledger->check_state(group, found, tid, "Python");
  const Word made = arena_.ledger->begin(found);
  python_.ask("write " + std::to_string(made.value) + where);
  const std::string committed = python_.ask("commit");
  if (committed == "conflict") {
    ++conflicts_;
    return arena_.ledger->given_up(made);
  }
  ++commits_;
  arena_.ledger->committed(group, made, committed, std::nullopt);
}

void PythonWriter::run(std::stop_token stop) {
  while (!stop.stop_requested()) {
    transaction();
    std::this_thread::sleep_for(std::chrono::milliseconds(below(200)));
  }
}

std::string PythonWriter::report() const {
  return "writer in Python: " + std::to_string(commits_) + " commits, " +
         std::to_string(conflicts_) + " conflicts";
}

}  // namespace zbig::race
