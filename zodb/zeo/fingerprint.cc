// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/fingerprint.h"

#include <memory>
#include <sstream>

#include <openssl/evp.h>

#include "zodb/error.h"

namespace zbig::zeo {
namespace {

constexpr std::string_view kFormat = "zeo1";

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    invariant(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1,
              "OpenSSL has SHA-256");
  }
  void add(ByteView bytes) { EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()); }
  void add(std::uint64_t number) {
    std::array<std::byte, 8> bytes{};
    put_be<8>(bytes.data(), number);
    add(bytes);
  }
  void add_text(std::string_view text) {
    add(text.size());
    add(as_bytes(text));
  }
  std::array<std::byte, 32> end() {
    std::array<std::byte, 32> hash{};
    EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(hash.data()), nullptr);
    return hash;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

std::string hex_of(ByteView bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::byte byte : bytes) {
    text += kDigits[std::to_integer<unsigned>(byte) >> 4];
    text += kDigits[std::to_integer<unsigned>(byte) & 15];
  }
  return text;
}

}  // namespace

std::string Fingerprint::Mark::text() const {
  std::string text = std::string(kFormat) + " " + probe.hex() + " " + base.hex() + " " + digest;
  for (const Oid oid : resolved) text += " " + oid.hex();
  return text;
}

std::optional<Fingerprint::Mark> Fingerprint::Mark::parse(std::string_view text) {
  std::istringstream words{std::string(text)};
  std::string format;
  std::string probe;
  std::string base;
  Mark mark;
  if (!(words >> format >> probe >> base >> mark.digest) || format != kFormat) return {};
  const auto oid = Oid::parse_hex(probe);
  const auto tid = Tid::parse_hex(base);
  if (!oid || !tid) return {};
  mark.probe = *oid;
  mark.base = *tid;
  for (std::string word; words >> word;) {
    const auto resolved = Oid::parse_hex(word);
    if (!resolved) return {};
    mark.resolved.insert(*resolved);
  }
  return mark;
}

void Fingerprint::add_record(Oid oid, Tid base, std::span<const ByteView> parts) {
  Record record{.base = base};
  Sha256 sha;
  for (const ByteView part : parts) {
    record.size += part.size();
    sha.add(part);
  }
  record.hash = sha.end();
  records_[oid] = record;
  bytes_ += record.size;
}

void Fingerprint::add_resolved(Oid oid) { resolved_.insert(oid); }

std::vector<Oid> Fingerprint::oids() const {
  std::vector<Oid> oids;
  oids.reserve(records_.size());
  for (const auto& [oid, record] : records_) oids.push_back(oid);
  return oids;
}

// One that was there before, if there is one: what came after its base is found at once. The
// smallest, for it has to be loaded.
std::optional<Oid> Fingerprint::probe() const {
  const std::pair<const Oid, Record>* best = nullptr;
  const auto rank = [](const Record& record) {
    return std::pair(record.base == kNoTid, record.size);
  };
  for (const auto& item : records_) {
    if (resolved_.contains(item.first)) continue;
    if (best == nullptr || rank(item.second) < rank(best->second)) best = &item;
  }
  return best == nullptr ? std::nullopt : std::optional(best->first);
}

std::optional<Fingerprint::Mark> Fingerprint::mark(std::string_view user,
                                                   std::string_view description) const {
  const auto probe = this->probe();
  if (!probe) return std::nullopt;
  Sha256 sha;
  sha.add_text(user);
  sha.add_text(description);
  for (const auto& [oid, record] : records_) {
    const bool resolved = resolved_.contains(oid);
    sha.add(oid.value);
    sha.add(resolved ? 1 : 0);
    if (resolved) continue;
    sha.add(record.base.value);
    sha.add(record.size);
    sha.add(record.hash);
  }
  return Mark{*probe, records_.at(*probe).base, resolved_, hex_of(sha.end())};
}

}  // namespace zbig::zeo
