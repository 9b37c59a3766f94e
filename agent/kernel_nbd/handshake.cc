// SPDX-License-Identifier: BSD-3-Clause
#include "agent/kernel_nbd/handshake.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "zodb/error.h"

namespace zbig {
namespace {

constexpr std::uint64_t kMagic = 0x4e42444d41474943;        // "NBDMAGIC"
constexpr std::uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
constexpr std::uint64_t kReplyMagic = 0x0003e889045565a9;
constexpr std::uint16_t kFixedNewstyle = 1;
constexpr std::uint16_t kNoZeroes = 2;
constexpr std::uint32_t kOptGo = 7;
constexpr std::uint32_t kRepAck = 1;
constexpr std::uint32_t kRepInfo = 3;
constexpr std::uint32_t kRepError = 0x80000000;
constexpr std::uint32_t kRepErrUnsupported = kRepError + 1;
constexpr std::uint32_t kRepErrTlsRequired = kRepError + 5;
constexpr std::uint32_t kRepErrUnknown = kRepError + 6;
constexpr std::uint32_t kRepErrShutdown = kRepError + 7;
constexpr std::uint16_t kInfoExport = 0;
constexpr std::uint16_t kInfoBlockSize = 3;
// No reply that makes sense is longer, and no server sends more of them.
constexpr std::uint32_t kMaxReply = 64 * 1024;
constexpr int kMaxReplies = 100;
constexpr std::size_t kMaxName = 4096;  // NBD's limit of strings

template <class T>
T load(std::span<const unsigned char> bytes, std::size_t at) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) value = static_cast<T>((value << 8) | bytes[at + i]);
  return value;
}

template <class T>
void append(std::vector<unsigned char>& bytes, T value) {
  for (std::size_t i = sizeof(T); i-- > 0;) {
    bytes.push_back(static_cast<unsigned char>(value >> (8 * i)));
  }
}

// A connected stream with a deadline for all that is done with it.
class Stream {
 public:
  Stream(int fd, const std::string& where, Deadline deadline)
      : fd_(fd), where_(where), deadline_(deadline) {}

  std::vector<unsigned char> read(std::size_t length) {
    std::vector<unsigned char> bytes(length);
    for (std::size_t done = 0; done < length;) {
      const ssize_t got = ::recv(fd_, bytes.data() + done, length - done, MSG_DONTWAIT);
      if (got == 0) throw Unavailable(where_ + ": the server closed the connection");
      if (got > 0) {
        done += static_cast<std::size_t>(got);
      } else {
        wait(POLLIN);
      }
    }
    return bytes;
  }

  void write(std::span<const unsigned char> bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent >= 0) {
        bytes = bytes.subspan(static_cast<std::size_t>(sent));
      } else {
        wait(POLLOUT);
      }
    }
  }

 private:
  // After a call that failed: waits until it can be tried again.
  void wait(short events) {
    if (errno == EPIPE || errno == ECONNRESET) {
      throw Unavailable(where_ + ": the server closed the connection");
    }
    if (errno != EAGAIN && errno != EINTR) throw_errno(where_, errno);
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline_ - std::chrono::steady_clock::now());
    if (left.count() <= 0) throw Unavailable(where_ + ": no answer in time");
    pollfd poll_fd = {fd_, events, 0};
    ::poll(&poll_fd, 1, static_cast<int>(std::min<std::int64_t>(left.count(), 60'000)));
  }

  int fd_;
  const std::string& where_;
  Deadline deadline_;
};

// The server's own words, as one line.
std::string message_of(std::span<const unsigned char> bytes) {
  std::string text;
  for (const unsigned char byte : bytes.first(std::min<std::size_t>(bytes.size(), 500))) {
    text += byte < 0x20 || byte == 0x7f ? ' ' : static_cast<char>(byte);
  }
  return text.empty() ? "the server gave no reason" : text;
}

[[noreturn]] void refuse(const std::string& where, std::uint32_t type,
                         std::span<const unsigned char> text) {
  const std::string sentence = where + ": " + message_of(text);
  switch (type) {
    case kRepErrUnknown:
      throw NotFound(sentence);
    case kRepErrShutdown:
      throw Unavailable(sentence);
    case kRepErrUnsupported:
      throw Unsupported(where + ": the server is too old, it does not know NBD_OPT_GO");
    case kRepErrTlsRequired:
      throw Unsupported(where + ": the server wants TLS, which the kernel does not speak");
    default:
      throw Failed(sentence);
  }
}

void take_info(std::span<const unsigned char> data, NbdSocket& socket, const std::string& where) {
  const auto type = data.size() < 2 ? 0xffff : load<std::uint16_t>(data, 0);
  const std::size_t expected = type == kInfoExport ? 12 : type == kInfoBlockSize ? 14 : data.size();
  if (data.size() < 2 || data.size() != expected) {
    throw Corrupt(where + ": NBD_REP_INFO of " + std::to_string(data.size()) + " bytes");
  }
  if (type == kInfoExport) {
    socket.size = load<std::uint64_t>(data, 2);
    socket.flags = load<std::uint16_t>(data, 10);
    if ((socket.flags & kNbdHasFlags) == 0) throw Corrupt(where + ": an export without flags");
  } else if (type == kInfoBlockSize) {
    socket.minimum_block = load<std::uint32_t>(data, 2);
    socket.maximum_request = load<std::uint32_t>(data, 10);
  }
}

}  // namespace

NbdSocket nbd_handshake(Fd stream, const std::string& where, const std::string& export_name,
                        Deadline deadline) {
  if (export_name.size() > kMaxName) throw Invalid(where + ": the export's name is too long");
  Stream server(stream.get(), where, deadline);

  const auto greeting = server.read(18);
  if (load<std::uint64_t>(greeting, 0) != kMagic) throw Corrupt(where + ": it is no NBD server");
  const auto server_flags = load<std::uint16_t>(greeting, 16);
  if (load<std::uint64_t>(greeting, 8) != kOptionMagic || (server_flags & kFixedNewstyle) == 0) {
    throw Unsupported(where + ": the server is too old, it does not negotiate");
  }
  std::vector<unsigned char> request;
  append<std::uint32_t>(request, server_flags & (kFixedNewstyle | kNoZeroes));
  append<std::uint64_t>(request, kOptionMagic);
  append<std::uint32_t>(request, kOptGo);
  append(request, static_cast<std::uint32_t>(4 + export_name.size() + 4));
  append(request, static_cast<std::uint32_t>(export_name.size()));
  request.insert(request.end(), export_name.begin(), export_name.end());
  append<std::uint16_t>(request, 1);
  append(request, kInfoBlockSize);
  server.write(request);

  NbdSocket socket;
  for (int replies = 0; replies < kMaxReplies; ++replies) {
    const auto head = server.read(20);
    const auto type = load<std::uint32_t>(head, 12);
    const auto length = load<std::uint32_t>(head, 16);
    if (load<std::uint64_t>(head, 0) != kReplyMagic || load<std::uint32_t>(head, 8) != kOptGo ||
        length > kMaxReply) {
      throw Corrupt(where + ": a reply that is none to what was asked");
    }
    const auto data = server.read(length);
    if ((type & kRepError) != 0) refuse(where, type, data);
    if (type == kRepInfo) take_info(data, socket, where);
    if (type != kRepAck) continue;
    if (socket.flags == 0) throw Corrupt(where + ": no NBD_INFO_EXPORT before the end");
    socket.fd = std::move(stream);
    return socket;
  }
  throw Corrupt(where + ": no end of replies");
}

NbdSocket nbd_connect(const std::string& socket_path, const std::string& export_name,
                      Deadline deadline) {
  const std::string where = "connect to export '" + export_name + "' at " + socket_path;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) {
    throw Invalid(where + ": the path is longer than a socket's can be");
  }
  std::memcpy(address.sun_path, socket_path.c_str(), socket_path.size() + 1);
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) throw_errno(where, errno);
  while (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    // EAGAIN: the server has not yet accepted the connections of others. There is no event for it.
    if (errno != EAGAIN && errno != EINTR) {
      throw Unavailable(where + ": " + std::generic_category().message(errno));
    }
    if (std::chrono::steady_clock::now() >= deadline)
      throw Unavailable(where + ": no answer in time");
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  const int mode = ::fcntl(fd.get(), F_GETFL);
  if (mode < 0 || ::fcntl(fd.get(), F_SETFL, mode & ~O_NONBLOCK) != 0) throw_errno(where, errno);
  return nbd_handshake(std::move(fd), where, export_name, deadline);
}

}  // namespace zbig
