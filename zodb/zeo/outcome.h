// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "zodb/storage.h"
#include "zodb/zeo/link.h"

// What became of a transaction whose tpc_finish was sent and not answered.
//
// Only the database can tell. The transaction, if it is there, is behind the head that was known
// before, and has the same texts, objects and bytes. What is remembered of the bytes is a checksum:
// 32 bits for each object, beside its size.

namespace zbig::zeo {

class Outcome {
 public:
  Outcome(const TransactionMeta& meta, Tid head) : meta_(meta), head_(head) {}

  void add_record(Oid oid, std::span<const ByteView> parts);
  // What the server stored of these is not what it was given.
  void add_resolved(Oid oid);
  std::vector<Oid> oids() const;
  std::uint64_t bytes() const { return bytes_; }  // of the records

  // The transaction's tid, if it was committed. Waits until it cannot be committed any more.
  // Throws Unavailable if the server cannot be asked.
  std::optional<Tid> find(Link& link) const;

 private:
  struct Record {
    std::uint64_t size = 0;
    std::uint32_t checksum = 0;
    bool resolved = false;
  };

  void wait_until_decided(Link& link) const;

  const TransactionMeta meta_;
  const Tid head_;
  std::unordered_map<Oid, Record> records_;
  std::uint64_t bytes_ = 0;
};

}  // namespace zbig::zeo
