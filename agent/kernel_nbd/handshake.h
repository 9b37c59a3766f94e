// SPDX-License-Identifier: BSD-3-Clause
//
// The client's half of NBD's handshake, up to where the kernel takes over.
//
// Own code and not libnbd, because the kernel speaks exactly one dialect: simple replies, no
// metadata contexts, no extended headers, no TLS. Here nothing else can be negotiated, whatever a
// later library would do by itself, no byte past the handshake is read, and each wait has a
// deadline.
//
// Source: "The NBD protocol", doc/proto.md of the nbd project (fixed newstyle, NBD_OPT_GO).
#pragma once

#include <cstdint>
#include <string>

#include "agent/fd.h"
#include "agent/kernel_nbd/worker.h"

namespace zbig {

// Transmission flags of an export.
inline constexpr std::uint16_t kNbdHasFlags = 1 << 0;
inline constexpr std::uint16_t kNbdReadOnly = 1 << 1;
inline constexpr std::uint16_t kNbdFlush = 1 << 2;
inline constexpr std::uint16_t kNbdFua = 1 << 3;
inline constexpr std::uint16_t kNbdTrim = 1 << 5;
inline constexpr std::uint16_t kNbdMultiConn = 1 << 8;

struct NbdSocket {
  Fd fd;  // a stream in transmission phase
  std::uint64_t size = 0;
  std::uint16_t flags = 0;
  // What the server asks requests to be; 0 where it did not say.
  std::uint32_t minimum_block = 0;
  std::uint32_t maximum_request = 0;
};

// Unavailable: nobody listens, or no answer in time. NotFound: no such export. Corrupt: it is no
// NBD server. Unsupported: it is too old, or wants TLS.
NbdSocket nbd_connect(const std::string& socket_path, const std::string& export_name,
                      Deadline deadline);

// The same over a connected stream; `where` names it in errors.
NbdSocket nbd_handshake(Fd stream, const std::string& where, const std::string& export_name,
                        Deadline deadline);

}  // namespace zbig
