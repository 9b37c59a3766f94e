// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/bucket_scan.h"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace zbig {
namespace {

// More may be more than the pickle reader takes.
constexpr std::size_t kMaxPairs = 100000;

// Once it has met something unusual it stays at the end of the record.
class Scan {
 public:
  explicit Scan(std::string_view text) : text_(text) {}

  bool failed() const { return failed_; }
  bool at_end() const { return at_ == text_.size(); }

  bool next_is(char c) const { return at_ < text_.size() && text_[at_] == c; }
  void expect(std::string_view expected) {
    if (text_.substr(at_, expected.size()) != expected) return fail();
    at_ += expected.size();
  }
  std::uint64_t little_endian(std::size_t size) {
    const char* bytes = take(size);
    std::uint64_t value = 0;
    if (bytes != nullptr) std::memcpy(&value, bytes, size);
    return value;
  }

  // BINPUT, which may be missing. Numbers grow, so that none is given twice.
  std::optional<std::uint64_t> put() {
    if (!next_is('q') && !next_is('r')) return std::nullopt;
    const std::uint64_t index = little_endian(text_[at_++] == 'q' ? 1 : 4);
    if (index < least_put_ || index >= text_.size()) fail();
    least_put_ = index + 1;
    return index;
  }

  // GLOBAL with a number, or the number of an earlier one.
  std::optional<ClassId> known_class() {
    if (next_is('h') || next_is('j')) {
      const std::uint64_t index = little_endian(text_[at_++] == 'h' ? 1 : 4);
      for (const Named& named : named_) {
        if (named.index == index && named.cls) return named.cls;
      }
      fail();
      return std::nullopt;
    }
    expect("c");
    const std::string_view module = line();
    const std::string_view name = line();
    if (failed_) return std::nullopt;
    const auto cls = ClassId::find({module, name});
    const auto index = put();
    if (!cls || !index || count_ == std::size(named_)) {
      fail();
      return std::nullopt;
    }
    named_[count_++] = {*index, cls};
    return cls;
  }

  // Of less than 2^31, which fits in both kinds of bucket.
  std::int64_t integer() {
    const char* op = take(1);
    if (op == nullptr) return 0;
    switch (*op) {
      case 'K':
        return static_cast<std::int64_t>(little_endian(1));
      case 'M':
        return static_cast<std::int64_t>(little_endian(2));
      case 'J':
        return static_cast<std::int32_t>(little_endian(4));
      default:
        fail();
        return 0;
    }
  }

  // ((oid, class), BINPERSID)
  Ref ref() {
    Ref ref;
    expect("C\x08");
    if (const char* oid = take(8)) ref.oid.value = get_be<8>(as_bytes({oid, 8}).data());
    put();
    ref.cls = known_class();
    expect("\x86");
    put();
    expect("Q");
    return ref;
  }

 private:
  struct Named {
    std::uint64_t index = 0;
    std::optional<ClassId> cls;
  };

  void fail() {
    failed_ = true;
    at_ = text_.size();
  }
  const char* take(std::size_t size) {
    if (size > text_.size() - at_) {
      fail();
      return nullptr;
    }
    at_ += size;
    return text_.data() + (at_ - size);
  }
  std::string_view line() {
    const std::size_t end = text_.find('\n', at_);
    if (end == std::string_view::npos) {
      fail();
      return {};
    }
    const std::string_view found = text_.substr(at_, end - at_);
    at_ = end + 1;
    return found;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  bool failed_ = false;
  std::uint64_t least_put_ = 0;
  Named named_[4];  // a bucket's own class, ZData or those of ZBlks
  std::size_t count_ = 0;
};

bool is_bucket(ClassId cls) {
  return cls.known() == KnownClass::kLOBucket || cls.known() == KnownClass::kIOBucket;
}

}  // namespace

std::optional<BTreeNode> scan_bucket(ByteView record) {
  Scan scan(as_text(record));
  scan.expect("\x80\x03");
  const auto cls = scan.known_class();
  if (!cls || !is_bucket(*cls)) return std::nullopt;
  scan.expect(".\x80\x03(");

  BTreeNode node(*cls, BTreeNode::Shape::kBucket);
  const std::size_t expected = std::min(kMaxPairs, record.size() / 20 + 1);
  node.keys.reserve(expected);
  node.refs.reserve(expected);
  while (!scan.next_is('t')) {
    const std::int64_t key = scan.integer();
    node.refs.push_back(scan.ref());
    if (scan.failed() || (!node.keys.empty() && key <= node.keys.back()) ||
        node.keys.size() == kMaxPairs) {
      return std::nullopt;
    }
    node.keys.push_back(key);
  }
  scan.expect("t");
  scan.put();
  if (scan.next_is('\x85')) {
    scan.expect("\x85");
  } else {
    node.link = scan.ref();
    scan.expect("\x86");
  }
  scan.put();
  scan.expect(".");
  if (scan.failed() || !scan.at_end() || node.keys.empty()) return std::nullopt;
  return node;
}

}  // namespace zbig
