// SPDX-License-Identifier: BSD-3-Clause
#include "agent/self_check.h"

#include <array>
#include <string_view>

#include <poll.h>
#include <sys/socket.h>

#include "agent/control_client.h"
#include "zodb/error.h"

namespace zbig {

bool answers_itself(const std::string& socket, const Fd& stop, std::chrono::milliseconds patience) {
  constexpr std::string_view kRequest =
      "GET /v1/devices HTTP/1.1\r\nHost: zbigd\r\nConnection: close\r\n\r\n";
  constexpr std::string_view kAnswer = "HTTP/1.1 ";
  try {
    const Fd connection = connect_unix_socket(socket);
    // A request this short fits into the socket's buffer, whoever reads it.
    if (::send(connection.get(), kRequest.data(), kRequest.size(), MSG_NOSIGNAL) < 0) return false;
    std::array<pollfd, 2> items = {{{.fd = connection.get(), .events = POLLIN, .revents = 0},
                                    {.fd = stop.get(), .events = POLLIN, .revents = 0}}};
    if (::poll(items.data(), items.size(), static_cast<int>(patience.count())) <= 0) return false;
    std::array<char, kAnswer.size()> start{};
    const ssize_t n = ::recv(connection.get(), start.data(), start.size(), MSG_DONTWAIT);
    return n > 0 && std::string_view(start.data(), static_cast<std::size_t>(n)) == kAnswer;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace zbig
