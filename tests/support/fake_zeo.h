// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "zodb/zeo/message.h"

// A ZEO server that says what a test tells it, on a Unix socket: right or wrong.

namespace zbig::test {

// Values in MessagePack.
Bytes packed_id(std::uint64_t id);
Bytes packed_bytes(std::string_view bytes);
Bytes packed_list(const std::vector<Bytes>& items);
inline const Bytes kPackedNone{std::byte{0xc0}};
// A frame around a payload; a reply, and a call of the server.
Bytes frame(ByteView payload);
Bytes reply(std::int64_t id, const Bytes& value, int flag = 0);
Bytes server_call(std::string_view method, const Bytes& args);

class FakeZeo {
 public:
  // What goes out when the client has called; frames, or any bytes.
  using Answer = std::function<Bytes(const zeo::Message& call)>;

  // `greeting` goes out first, as it is. A call that is not answered by `answer` (which returned
  // nothing) gets what an empty database's server says.
  FakeZeo(Bytes greeting, Answer answer = {});
  ~FakeZeo();

  std::string url() const { return "zeo://" + path_ + "?storage=1&wait_timeout=2"; }
  void send(const Bytes& bytes);  // to the client that came last
  void hang_up();                 // on it

 private:
  void serve(const std::stop_token& stop);
  void talk(int fd);

  const Bytes greeting_;
  const Answer answer_;
  std::string path_;
  int listener_ = -1;
  std::mutex mutex_;
  int client_ = -1;  // guarded by mutex_
  std::jthread thread_;
};

}  // namespace zbig::test
