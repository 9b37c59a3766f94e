// SPDX-License-Identifier: BSD-3-Clause
#include "cli/agent_client.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/api/places.h"
#include "cli/agent_conflict.h"
#include "cli/verb.h"
#include "zodb/error_word.h"

namespace zbig {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxAnswer = 64u << 20;
constexpr milliseconds kStartPatience{20000};

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

// The errno, or 0.
int connect_to(const Socket& socket, const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (socket.fd() < 0) return errno;
  if (path.size() >= sizeof address.sun_path) return ENAMETOOLONG;
  std::memcpy(address.sun_path, path.data(), path.size());
  return ::connect(socket.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0
             ? 0
             : errno;
}

// False if the agent has closed: one that refuses a request early does so after its answer, which
// is to be read then.
bool send_all(const Socket& socket, std::string_view text, const std::string& path) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t n = ::send(socket.fd(), text.data() + done, text.size() - done, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) return false;
    if (n < 0)
      throw Unavailable("the agent at " + path + ": " + std::generic_category().message(errno));
    done += static_cast<std::size_t>(n);
  }
  return true;
}

std::string receive_all(const Socket& socket, const std::optional<milliseconds>& timeout,
                        const std::string& path) {
  const auto deadline = Clock::now() + timeout.value_or(milliseconds(0));
  std::string answer;
  std::array<char, 16384> buffer;
  while (true) {
    int wait = 60000;
    if (timeout) {
      const auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now());
      if (left.count() <= 0) throw Unavailable("the agent at " + path + " does not answer");
      wait = static_cast<int>(left.count());
    }
    pollfd item{.fd = socket.fd(), .events = POLLIN, .revents = 0};
    if (::poll(&item, 1, wait) <= 0) continue;
    const ssize_t n = ::recv(socket.fd(), buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;  // the agent closes after its answer
    answer.append(buffer.data(), static_cast<std::size_t>(n));
    if (answer.size() > kMaxAnswer) throw Failed("the agent at " + path + ": endless answer");
  }
  return answer;
}

struct Answer {
  int status = 0;
  std::string body;
};

// The agent closes after each answer, so the body is what comes after the header; its length is
// checked, for an agent that died in the middle must not look like one that said less.
Answer parse(const std::string& text, const std::string& path) {
  const std::size_t end = text.find("\r\n\r\n");
  constexpr std::string_view kVersion = "HTTP/1.1 ";
  if (text.empty()) {
    throw AdvisedError(ErrorCode::kUnavailable, "the agent at " + path + " went away",
                       "if it was at work the work may or may not be done: `zbig status` tells");
  }
  if (end == std::string::npos || !text.starts_with(kVersion)) {
    throw Failed("what listens at " + path + " is no agent of zbig");
  }
  Answer answer;
  const char* digits = text.data() + kVersion.size();
  std::from_chars(digits, digits + 3, answer.status);
  answer.body = text.substr(end + 4);
  constexpr std::string_view kLength = "\r\nContent-Length: ";
  const std::size_t length_at = text.find(kLength);
  std::size_t length = 0;
  if (length_at < end) {
    std::from_chars(text.data() + length_at + kLength.size(), text.data() + end, length);
  }
  if (length != answer.body.size()) {
    throw Unavailable("the agent at " + path + " went away in the middle of its answer");
  }
  return answer;
}

[[noreturn]] void throw_answer(const Json& json, const std::string& path) {
  const Json error = json.is_object() && json.contains("error") ? json["error"] : Json::object();
  const auto text = [&](const char* key) {
    return error.contains(key) && error[key].is_string() ? error[key].get<std::string>() : "";
  };
  const std::string message = text("message");
  if (message.empty()) throw Failed("the agent at " + path + ": an error without a reason");
  if (error.contains("conflict")) throw AgentConflict(message, text("hint"), error["conflict"]);
  throw AdvisedError(error_code(text("code")), message, text("hint"));
}

std::string header_of(const std::string& call, const std::string& type, std::uint64_t length) {
  std::string header = call + " HTTP/1.1\r\nHost: zbigd\r\nConnection: close\r\n";
  if (!type.empty()) header += "Content-Type: " + type + "\r\n";
  return header + "Content-Length: " + std::to_string(length) + "\r\n\r\n";
}

// The JSON of an answer, or the error that it tells.
Json answer_of(const std::string& text, const std::string& path) {
  const Answer answer = parse(text, path);
  const Json json = Json::parse(answer.body, nullptr, false);
  if (json.is_discarded()) throw Failed("the agent at " + path + ": its answer is no JSON");
  if (answer.status < 200 || answer.status > 299) throw_answer(json, path);
  return json;
}

// What starts the agent: where it is a service of the machine, systemd does; for one of our own
// would end with our session, and keep the service from its state folder until then. Otherwise
// zbigd beside this program, or found in PATH.
std::vector<std::string> agent_start_command() {
  std::error_code error;
  if (::geteuid() == 0 && std::filesystem::exists("/run/systemd/system", error)) {
    for (const char* folder : {"/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"}) {
      if (std::filesystem::exists(folder + std::string("/systemd/system/zbigd.service"), error)) {
        return {"systemctl", "start", "zbigd.service"};
      }
    }
  }
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  const auto beside = self.parent_path() / "zbigd";
  return {!error && std::filesystem::exists(beside, error) ? beside.string() : "zbigd"};
}

std::string chosen_socket(const std::optional<std::string>& option) {
  if (option) return *option;
  const char* environment = std::getenv("ZBIG_SOCKET");
  return environment == nullptr ? "" : environment;
}

}  // namespace

AgentClient::AgentClient(const std::optional<std::string>& socket)
    : socket_(chosen_socket(socket)), chosen_(!socket_.empty()) {
  if (!chosen_) socket_ = default_agent_socket();
}

bool AgentClient::listens() const {
  const Socket socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return connect_to(socket, socket_) == 0;
}

void AgentClient::start_if_needed() const {
  if (chosen_ || listens()) return;
  std::vector<std::string> command = agent_start_command();
  const std::string& program = command.back();
  std::cerr << "starting " << program << "\n";
  std::vector<char*> words;
  words.reserve(command.size() + 1);
  for (std::string& word : command) words.push_back(word.data());
  words.push_back(nullptr);
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, words[0], nullptr, nullptr, words.data(), environ);
  if (error != 0) {
    throw AdvisedError(ErrorCode::kUnavailable,
                       "no agent runs, and " + program +
                           " cannot be started: " + std::generic_category().message(error),
                       "start zbigd by hand; `zbigd --help` tells how");
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  // It has said why on standard error. Another zbig may have been a moment faster: then all is well
  // as soon as the agent that it started is ready.
  const bool other_starts =
      WIFEXITED(status) && WEXITSTATUS(status) == exit_status(ErrorCode::kBusy);
  const auto deadline = Clock::now() + (other_starts ? kStartPatience : milliseconds(0));
  while (!listens()) {
    if (Clock::now() >= deadline) {
      throw AdvisedError(ErrorCode::kUnavailable,
                         "no agent runs, and " + program + " did not start",
                         "start zbigd by hand; `zbigd --help` tells how");
    }
    std::this_thread::sleep_for(milliseconds(20));
  }
}

void AgentClient::throw_no_agent(int error) const {
  throw AdvisedError(
      ErrorCode::kUnavailable,
      "no agent at " + socket_ + ": " + std::generic_category().message(error),
      error == EACCES ? "it is another user's; become that user, or choose a socket with --socket"
                      : "start it: zbigd" + (chosen_ ? " --socket " + socket_ : std::string()));
}

Json AgentClient::request(const std::string& method, const std::string& target, const Json& body,
                          std::optional<milliseconds> timeout) const {
  const Socket socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (const int error = connect_to(socket, socket_); error != 0) throw_no_agent(error);
  const std::string text = body.is_null() ? "" : dump(body);
  send_all(
      socket,
      header_of(method + " " + target, text.empty() ? "" : "application/json", text.size()) + text,
      socket_);
  return answer_of(receive_all(socket, timeout, socket_), socket_);
}

Json AgentClient::upload(const std::string& target, int fd, std::uint64_t size,
                         const std::function<void(std::uint64_t)>& sent) const {
  const Socket socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (const int error = connect_to(socket, socket_); error != 0) throw_no_agent(error);
  bool open =
      send_all(socket, header_of("POST " + target, "application/octet-stream", size), socket_);
  std::string buffer(256u << 10, '\0');
  for (std::uint64_t done = 0; open && done < size;) {
    const auto wanted = std::min<std::uint64_t>(buffer.size(), size - done);
    const ssize_t count = ::pread(fd, buffer.data(), wanted, static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_errno("read the file at " + std::to_string(done), errno);
    if (count == 0) throw Failed("the file became shorter while it was read");
    open = send_all(socket, std::string_view(buffer).substr(0, static_cast<std::size_t>(count)),
                    socket_);
    done += static_cast<std::uint64_t>(count);
    sent(done);
  }
  return answer_of(receive_all(socket, std::nullopt, socket_), socket_);
}

std::string percent_encoded(const std::string& text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) || c == '-' || c == '.' || c == '_' || c == '~') {
      out += c;
    } else {
      out += '%';
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    }
  }
  return out;
}

}  // namespace zbig
