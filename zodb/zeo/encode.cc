// SPDX-License-Identifier: BSD-3-Clause

// Calls into frames: two sinks that spell the same few kinds of things, each as ZEO's own client
// spells them, byte for byte. A server decodes bytes from `bin` and BINBYTES only; an oid sent as
// text is refused.

#include <limits>

#include "zodb/error.h"
#include "zodb/zeo/message.h"

namespace zbig::zeo {
namespace {

constexpr std::size_t kPrefix = 4;

template <std::size_t N>
void add_be(Bytes& out, std::uint64_t value) {
  out.resize(out.size() + N);
  put_be<N>(out.data() + out.size() - N, value);
}

template <std::size_t N>
void add_le(Bytes& out, std::uint64_t value) {
  for (std::size_t i = 0; i < N; ++i) out.push_back(static_cast<std::byte>(value >> 8 * i & 0xff));
}

void add(Bytes& out, unsigned code) { out.push_back(static_cast<std::byte>(code)); }

class MsgpackSink {
 public:
  explicit MsgpackSink(Bytes& out) : out_(out) {}

  void begin() {}
  void end() {}
  void none() { add(out_, 0xc0); }
  void boolean(bool value) { add(out_, value ? 0xc3 : 0xc2); }
  void integer(std::int64_t value) {
    if (value < -32) {
      add(out_, 0xd3);
      add_be<8>(out_, static_cast<std::uint64_t>(value));
      return;
    }
    const auto number = static_cast<std::uint64_t>(value);
    if (value < 0x80) {
      add(out_, static_cast<unsigned>(number & 0xff));
    } else if (value <= 0xff) {
      add(out_, 0xcc);
      add_be<1>(out_, number);
    } else if (value <= 0xffff) {
      add(out_, 0xcd);
      add_be<2>(out_, number);
    } else if (value <= 0xffffffff) {
      add(out_, 0xce);
      add_be<4>(out_, number);
    } else {
      add(out_, 0xcf);
      add_be<8>(out_, number);
    }
  }
  void text(std::string_view value) {
    if (value.size() < 0x20) {
      add(out_, static_cast<unsigned>(0xa0 | value.size()));
    } else {
      sized(0xd9, value.size());
    }
    append(out_, value);
  }
  void begin_bytes(std::size_t size) { sized(0xc4, size); }
  void empty_map() { add(out_, 0x80); }
  void begin_sequence(std::size_t size) {
    if (size < 0x10) {
      add(out_, static_cast<unsigned>(0x90 | size));
    } else if (size <= 0xffff) {
      add(out_, 0xdc);
      add_be<2>(out_, size);
    } else {
      add(out_, 0xdd);
      add_be<4>(out_, size);
    }
  }
  void end_sequence(std::size_t) {}

 private:
  // `code` for a length of one byte; the next two are for those of two and four.
  void sized(unsigned code, std::size_t size) {
    if (size <= 0xff) {
      add(out_, code);
      add_be<1>(out_, size);
    } else if (size <= 0xffff) {
      add(out_, code + 1);
      add_be<2>(out_, size);
    } else {
      add(out_, code + 2);
      add_be<4>(out_, size);
    }
  }

  Bytes& out_;
};

class PickleSink {
 public:
  explicit PickleSink(Bytes& out) : out_(out) {}

  void begin() {
    add(out_, 0x80);
    add(out_, 3);
  }
  void end() { add(out_, '.'); }
  void none() { add(out_, 'N'); }
  void boolean(bool value) { add(out_, value ? 0x88 : 0x89); }
  void integer(std::int64_t value) {
    const auto number = static_cast<std::uint64_t>(value);
    if (value >= 0 && value <= 0xff) {
      add(out_, 'K');
      add_le<1>(out_, number);
    } else if (value >= 0 && value <= 0xffff) {
      add(out_, 'M');
      add_le<2>(out_, number);
    } else if (value >= std::numeric_limits<std::int32_t>::min() &&
               value <= std::numeric_limits<std::int32_t>::max()) {
      add(out_, 'J');
      add_le<4>(out_, number);
    } else {
      unsigned size = 5;  // as few as hold number and sign
      while (size < 8 && value >> (8 * size - 1) != value >> 63) ++size;
      add(out_, 0x8a);
      add(out_, size);
      for (unsigned i = 0; i < size; ++i) add_le<1>(out_, number >> 8 * i & 0xff);
    }
  }
  void text(std::string_view value) {
    add(out_, 'X');
    add_le<4>(out_, value.size());
    append(out_, value);
  }
  void begin_bytes(std::size_t size) {
    if (size <= 0xff) {
      add(out_, 'C');
      add_le<1>(out_, size);
    } else {
      add(out_, 'B');
      add_le<4>(out_, size);
    }
  }
  void empty_map() { add(out_, '}'); }
  void begin_sequence(std::size_t size) {
    if (size > 3) add(out_, '(');
  }
  void end_sequence(std::size_t size) {
    static constexpr unsigned kSmall[] = {')', 0x85, 0x86, 0x87};
    add(out_, size > 3 ? 't' : kSmall[size]);
  }

 private:
  Bytes& out_;
};

template <class Sink>
void write_arg(Sink& sink, Bytes& out, const Arg& arg) {
  switch (arg.kind()) {
    case Arg::Kind::kNone:
      return sink.none();
    case Arg::Kind::kBool:
      return sink.boolean(arg.boolean());
    case Arg::Kind::kInt:
      return sink.integer(arg.integer());
    case Arg::Kind::kText:
      return sink.text(arg.text());
    case Arg::Kind::kId:
      sink.begin_bytes(8);
      return add_be<8>(out, arg.id());
    case Arg::Kind::kBytes: {
      std::size_t size = 0;
      for (const ByteView part : arg.parts()) size += part.size();
      sink.begin_bytes(size);
      for (const ByteView part : arg.parts()) append(out, part);
      return;
    }
    case Arg::Kind::kEmptyMap:
      return sink.empty_map();
    case Arg::Kind::kIntList:
      sink.begin_sequence(arg.list().size());
      for (const std::int64_t value : arg.list()) sink.integer(value);
      return sink.end_sequence(arg.list().size());
  }
}

template <class Sink>
void write_call(Bytes& out, std::int64_t id, bool one_way, std::string_view method,
                std::span<const Arg> args) {
  Sink sink(out);
  sink.begin();
  sink.begin_sequence(4);
  sink.integer(id);
  sink.boolean(one_way);
  sink.text(method);
  sink.begin_sequence(args.size());
  for (const Arg& arg : args) write_arg(sink, out, arg);
  sink.end_sequence(args.size());
  sink.end_sequence(4);
  sink.end();
}

// About as many bytes as the call takes, never fewer.
std::size_t size_of(std::string_view method, std::span<const Arg> args) {
  std::size_t size = 64 + method.size();
  for (const Arg& arg : args) {
    size += 16 + arg.text().size() + 9 * arg.list().size();
    if (arg.kind() != Arg::Kind::kBytes) continue;
    for (const ByteView part : arg.parts()) size += part.size();
  }
  return size;
}

}  // namespace

Bytes encode_call(Encoding encoding, std::int64_t id, bool one_way, std::string_view method,
                  std::span<const Arg> args) {
  const std::size_t size = size_of(method, args);
  if (size > FrameReader::kMaxFrame) {
    throw Invalid("a message of " + std::to_string(size) + " bytes is too large for ZEO");
  }
  Bytes out;
  out.reserve(size);
  out.resize(kPrefix);
  if (encoding == Encoding::kMsgpack) {
    write_call<MsgpackSink>(out, id, one_way, method, args);
  } else {
    write_call<PickleSink>(out, id, one_way, method, args);
  }
  put_be<kPrefix>(out.data(), out.size() - kPrefix);
  return out;
}

Bytes encode_heartbeat(Encoding encoding) {
  Bytes out;
  out.reserve(64);
  out.resize(kPrefix);
  const auto write = [](auto sink) {
    sink.begin();
    sink.begin_sequence(4);
    sink.integer(-1);
    sink.integer(0);
    sink.text(".reply");
    sink.none();
    sink.end_sequence(4);
    sink.end();
  };
  if (encoding == Encoding::kMsgpack) {
    write(MsgpackSink(out));
  } else {
    write(PickleSink(out));
  }
  put_be<kPrefix>(out.data(), out.size() - kPrefix);
  return out;
}

}  // namespace zbig::zeo
