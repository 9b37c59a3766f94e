// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/filestorage/index_image.h"

#include <algorithm>
#include <charconv>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "zodb/error.h"
#include "zodb/filestorage/format.h"

namespace zbig::fs {

namespace {

// The opcodes of the pickles in an index. ZODB on Python 3 writes PROTO, C or B strings and TUPLE2;
// on Python 2, U or T strings, at protocol 1 without PROTO and with MARK and TUPLE, or memo puts.
enum Opcode : unsigned char {
  kProto = 0x80,
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kBinInt = 'J',
  kLong1 = 0x8a,
  kInt = 'I',
  kLong = 'L',
  kShortBytes = 'C',
  kBytes = 'B',
  kShortString = 'U',
  kString = 'T',
  kMark = '(',
  kTuple = 't',
  kTuple2 = 0x86,
  kPut = 'q',
  kLongPut = 'r',
  kNone = 'N',
  kStop = '.',
};

std::uint64_t get_le(ByteView bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) {
    value = value << 8 | std::to_integer<std::uint64_t>(bytes[i]);
  }
  return value;
}

void put_le(Bytes& out, std::uint64_t value, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i, value >>= 8) {
    out.push_back(static_cast<std::byte>(value & 0xff));
  }
}

// Takes an index apart from front to back. Every function returns nothing, and moves on no
// further, where the bytes are not what an index has there.
class Parser {
 public:
  explicit Parser(ByteView bytes) : bytes_(bytes) {}

  std::size_t offset() const { return offset_; }
  bool other_form() const { return other_form_; }

  std::optional<std::uint64_t> integer() {
    const auto value = number();
    return value && opcode(kStop) ? value : std::nullopt;
  }

  bool end() {
    skip_proto();
    return opcode(kNone) && opcode(kStop);
  }

  struct Pair {
    ByteView prefix;
    ByteView blob;
  };
  std::optional<Pair> pair() {
    skip_proto();
    const bool marked = opcode(kMark);
    const auto prefix = string();
    if (!prefix) return std::nullopt;
    const auto blob = string();
    if (!blob || !opcode(marked ? kTuple : kTuple2)) return std::nullopt;
    skip_put();
    if (!opcode(kStop)) return std::nullopt;
    other_form_ = other_form_ || marked;
    return Pair{*prefix, *blob};
  }

 private:
  bool opcode(Opcode wanted) {
    if (offset_ >= bytes_.size() || bytes_[offset_] != static_cast<std::byte>(wanted)) return false;
    ++offset_;
    return true;
  }

  std::optional<ByteView> take(std::uint64_t size) {
    if (size > bytes_.size() - offset_) return std::nullopt;
    const auto taken = bytes_.subspan(offset_, static_cast<std::size_t>(size));
    offset_ += taken.size();
    return taken;
  }

  std::optional<std::uint64_t> little(std::uint64_t size) {
    const auto taken = take(size);
    return taken ? std::optional(get_le(*taken)) : std::nullopt;
  }

  void skip_proto() {
    if (opcode(kProto)) take(1);
  }

  void skip_put() {
    const auto before = offset_;
    if (opcode(kPut)) take(1);
    if (opcode(kLongPut)) take(4);
    other_form_ = other_form_ || offset_ != before;
  }

  std::optional<ByteView> string() {
    std::optional<std::uint64_t> size;
    if (opcode(kShortBytes)) {
      size = little(1);
    } else if (opcode(kBytes)) {
      size = little(4);
    } else if (opcode(kShortString)) {
      size = little(1);
      other_form_ = true;
    } else if (opcode(kString)) {
      size = little(4);
      other_form_ = true;
    }
    if (!size) return std::nullopt;
    const auto taken = take(*size);
    skip_put();
    return taken;
  }

  std::optional<std::uint64_t> number() {
    skip_proto();
    if (opcode(kBinInt1)) return little(1);
    if (opcode(kBinInt2)) return little(2);
    if (opcode(kBinInt)) return little(4);
    if (opcode(kLong1)) {
      const auto size = little(1);
      return size && *size <= 8 ? little(*size) : std::nullopt;
    }
    if (opcode(kInt) || opcode(kLong)) return decimal();
    return std::nullopt;
  }

  std::optional<std::uint64_t> decimal() {
    const auto text =
        as_text(bytes_.subspan(offset_, std::min<std::size_t>(32, bytes_.size() - offset_)));
    std::uint64_t value = 0;
    const auto [last, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    auto used = static_cast<std::size_t>(last - text.data());
    if (error != std::errc()) return std::nullopt;
    if (used < text.size() && text[used] == 'L') ++used;
    if (used >= text.size() || text[used] != '\n') return std::nullopt;
    offset_ += used + 1;
    return value;
  }

  ByteView bytes_;
  std::size_t offset_ = 0;
  bool other_form_ = false;
};

}  // namespace

IndexImage::~IndexImage() {
  if (mapped_ != nullptr) ::munmap(mapped_, mapped_size_);
}

std::unique_ptr<IndexImage> IndexImage::map(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return nullptr;
  auto image = std::make_unique<IndexImage>();
  struct stat info {};
  if (::fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0) {
    const auto size = static_cast<std::size_t>(info.st_size);
    void* const at = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED) {
      // Lookups are random: bring the page that is asked for, and not its neighbours.
      ::madvise(at, size, MADV_RANDOM);
      image->mapped_ = at;
      image->mapped_size_ = size;
      image->bytes_ = ByteView(static_cast<const std::byte*>(at), size);
    }
  }
  ::close(fd);
  image->name_ = path;
  if (!image->parse()) return nullptr;
  return image;
}

std::unique_ptr<IndexImage> IndexImage::from_bytes(Bytes bytes, const std::string& name) {
  auto image = std::make_unique<IndexImage>();
  image->own_ = std::move(bytes);
  image->bytes_ = image->own_;
  image->name_ = name;
  if (!image->parse()) return nullptr;
  return image;
}

bool IndexImage::parse() {
  Parser parser(bytes_);
  const auto covered = parser.integer();
  if (!covered || *covered < kMagicSize || *covered > kMaxFileSize) return false;
  covered_ = *covered;
  const auto begin = parser.offset();
  for (;;) {
    const auto here = parser.offset();
    if (const auto pair = parser.pair()) {
      const auto count = pair->blob.size() / 8;
      if (pair->prefix.size() != 6 || count * 8 != pair->blob.size()) return false;
      if (count == 0 || count > 65536) return false;
      const auto prefix = get_be<6>(pair->prefix.data());
      if (!buckets_.empty() && prefix <= buckets_.back().prefix) return false;
      buckets_.push_back({prefix, pair->blob.data(), static_cast<std::uint32_t>(count)});
      size_ += count;
      continue;
    }
    bucket_bytes_ = bytes_.subspan(begin, here - begin);
    Parser rest(bytes_.subspan(here));
    if (!rest.end()) return false;
    break;
  }
  canonical_ = !parser.other_form();
  checked_ = std::make_unique<std::atomic<bool>[]>(buckets_.size());
  return true;
}

std::optional<std::uint64_t> IndexImage::find(Oid oid) const {
  const auto prefix = oid.value >> 16;
  const auto bucket =
      std::lower_bound(buckets_.begin(), buckets_.end(), prefix,
                       [](const Bucket& left, std::uint64_t right) { return left.prefix < right; });
  if (bucket == buckets_.end() || bucket->prefix != prefix) return std::nullopt;
  check(static_cast<std::size_t>(bucket - buckets_.begin()));

  // Suffixes ascend and differ, so the one we look for is no further from the first than their
  // difference, and exactly there where no oid is missing, which is the common case.
  const auto suffix = oid.value & 0xffff;
  const auto first = bucket->suffix(0);
  if (suffix < first) return std::nullopt;
  auto low = std::uint32_t{0};
  auto high = std::min(static_cast<std::uint32_t>(suffix - first), bucket->count - 1);
  if (bucket->suffix(high) == suffix) return bucket->position(high);
  while (low < high) {
    const auto middle = (low + high) / 2;
    if (bucket->suffix(middle) < suffix) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (bucket->suffix(low) != suffix) return std::nullopt;
  return bucket->position(low);
}

void IndexImage::check(std::size_t index) const {
  auto& checked = checked_[index];
  if (checked.load(std::memory_order_relaxed)) return;
  const auto& bucket = buckets_[index];
  for (std::uint32_t i = 0; i < bucket.count; ++i) {
    const bool ascending = i == 0 || bucket.suffix(i - 1) < bucket.suffix(i);
    const auto position = bucket.position(i);
    if (!ascending || position < kMagicSize + TransactionHeader::kSize || position >= covered_) {
      throw Corrupt(name_ + ": entry for object " + bucket.oid(i).brief() +
                    " makes no sense; remove this index and open the database again");
    }
  }
  checked.store(true, std::memory_order_relaxed);
}

std::optional<Oid> IndexImage::largest() const {
  if (buckets_.empty()) return std::nullopt;
  check(buckets_.size() - 1);
  return buckets_.back().oid(buckets_.back().count - 1);
}

std::optional<ByteView> IndexImage::canonical_buckets() const {
  return canonical_ ? std::optional(bucket_bytes_) : std::nullopt;
}

IndexImageWriter::IndexImageWriter(std::uint64_t covered, std::size_t expected_size) {
  out_.reserve(expected_size * 8 + expected_size / 1024 + 4096);
  append(out_, head(covered));
}

void IndexImageWriter::add(Oid oid, std::uint64_t position) {
  const auto prefix = oid.value >> 16;
  if (prefix != prefix_) {
    flush();
    prefix_ = prefix;
  }
  std::byte number[6];
  put_be<2>(number, oid.value & 0xffff);
  append(suffixes_, ByteView(number, 2));
  put_be<6>(number, position);
  append(positions_, ByteView(number, 6));
}

void IndexImageWriter::flush() {
  if (suffixes_.empty()) return;
  std::byte prefix[6];
  put_be<6>(prefix, prefix_);
  const auto size = suffixes_.size() + positions_.size();
  append(out_, std::string_view("\x80\x03"
                                "C\x06"));
  append(out_, prefix);
  if (size <= 0xff) {
    out_.push_back(std::byte{kShortBytes});
    put_le(out_, size, 1);
  } else {
    out_.push_back(std::byte{kBytes});
    put_le(out_, size, 4);
  }
  append(out_, suffixes_);
  append(out_, positions_);
  append(out_, std::string_view("\x86."));
  suffixes_.clear();
  positions_.clear();
}

Bytes IndexImageWriter::finish() {
  flush();
  append(out_, tail());
  return std::move(out_);
}

Bytes IndexImageWriter::head(std::uint64_t covered) {
  Bytes out;
  append(out, std::string_view("\x80\x03"));
  if (covered <= 0xff) {
    out.push_back(std::byte{kBinInt1});
    put_le(out, covered, 1);
  } else if (covered <= 0xffff) {
    out.push_back(std::byte{kBinInt2});
    put_le(out, covered, 2);
  } else if (covered <= 0x7fffffff) {
    out.push_back(std::byte{kBinInt});
    put_le(out, covered, 4);
  } else {
    // Two's complement: as many bytes as leave the highest bit zero.
    std::size_t size = 5;
    while (covered >> (8 * size - 1) != 0) ++size;
    out.push_back(std::byte{kLong1});
    put_le(out, size, 1);
    put_le(out, covered, size);
  }
  out.push_back(std::byte{kStop});
  return out;
}

Bytes IndexImageWriter::tail() {
  const auto end = as_bytes("\x80\x03N.");
  return Bytes(end.begin(), end.end());
}

}  // namespace zbig::fs
