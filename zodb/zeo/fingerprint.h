// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "zodb/storage.h"

// Fingerprint: what a transaction is known by before it has a tid, which a server tells only when
// it is in the database.
//
// A transaction is the same if it has the same texts, stored the same objects, made each from the
// same revision, and gave it the same bytes (by SHA-256). Whoever made it: it did to the database
// what ours would have done, and ours cannot be in there beside it. Of an object whose conflict the
// server resolved nothing is known but that it was stored.

namespace zbig::zeo {

class Fingerprint {
 public:
  // As text, one line of printable characters.
  struct Mark {
    Oid probe;  // the object by which to find the transaction
    Tid base;   // the revision that it was made from; kNoTid: it was new
    std::set<Oid> resolved;
    std::string digest;  // of everything, in hex

    std::string text() const;
    // Nothing for what is no mark.
    static std::optional<Mark> parse(std::string_view text);
  };

  void add_record(Oid oid, Tid base, std::span<const ByteView> parts);
  void set_base(Oid oid, Tid base) { records_[oid].base = base; }
  // What the server stored of these is not what it was given.
  void add_resolved(Oid oid);

  std::vector<Oid> oids() const;
  std::uint64_t bytes() const { return bytes_; }  // of the records
  // Nothing if all was resolved: then it cannot be told from others.
  std::optional<Mark> mark(std::string_view user, std::string_view description) const;

 private:
  using Hash = std::array<std::byte, 32>;
  struct Record {
    Tid base;
    std::uint64_t size = 0;
    Hash hash{};  // of the bytes
  };
  std::optional<Oid> probe() const;

  std::map<Oid, Record> records_;
  std::set<Oid> resolved_;
  std::uint64_t bytes_ = 0;
};

}  // namespace zbig::zeo
