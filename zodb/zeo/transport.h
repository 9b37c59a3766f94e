// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>

#include "zodb/bytes.h"
#include "zodb/error.h"
#include "zodb/zeo/frame.h"
#include "zodb/zeo/loop.h"
#include "zodb/zeo/options.h"

// Transport: frames over one TCP or Unix connection, with TLS or without; from the connect to the
// end. A TCP connection whose peer is gone without a word is closed by the kernel after 30 s.

namespace zbig::zeo {

class Transport {
 public:
  // Who is told, in the loop's thread.
  class Receiver {
   public:
    virtual ~Receiver() = default;
    // An Error that it throws ends the connection.
    virtual void on_frame(Frame frame) = 0;
    // The last that is heard, exactly once.
    virtual void on_closed(const Error& why) = 0;
  };

  // Begins to connect; the receiver lives as long as it likes. Throws Invalid for TLS files that
  // cannot be used.
  static std::shared_ptr<Transport> open(Loop& loop, const Options& options,
                                         std::weak_ptr<Receiver> receiver);
  virtual ~Transport() = default;

  // Any thread. Frames go out in this order, once connected; after the end they are dropped.
  virtual void send(Bytes frame) = 0;
  // Waits until fewer than `most` bytes are waiting to go out. False if none went for `patience`,
  // or the end came.
  virtual bool wait_for_room(std::size_t most, std::chrono::milliseconds patience) = 0;
  // Any thread; the receiver is told `why`, if the end has not come already.
  virtual void close(const Error& why) = 0;
};

}  // namespace zbig::zeo
