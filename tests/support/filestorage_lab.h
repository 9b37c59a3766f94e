// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/sha256.h"
#include "zodb/error.h"
#include "zodb/filestorage/filestorage.h"

// What the tests of FileStorage share: whole files as strings, and a storage's whole content as a
// text that two storages can be compared by.

namespace zbig::test {

inline std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot open " + path);
  std::ostringstream content;
  content << in.rdbuf();
  return content.str();
}

inline void spew(const std::string& path, std::string_view content) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(content.data(), static_cast<std::streamsize>(content.size()));
  if (!out) throw std::runtime_error("cannot write " + path);
}

inline Tid commit(Storage& storage, const std::vector<std::pair<Oid, std::string>>& records,
                  const TransactionMeta& meta = {}) {
  const auto transaction = storage.begin(meta);
  for (const auto& [oid, data] : records) {
    const auto now = storage.history(oid, 1);
    transaction->store(oid, now.empty() ? kNoTid : now[0].serial, as_bytes(data));
  }
  transaction->vote();
  return transaction->finish();
}

inline std::string text_of(const std::optional<Record>& record) {
  return record ? std::string(as_text(record->data)) : "(none)";
}

// Every transaction, and every object it stored as of it.
inline std::string content_of(const Storage& storage) {
  std::ostringstream out;
  const auto cursor = storage.transactions(kNoTid, kMaxTid, false);
  while (const auto transaction = cursor->next()) {
    out << transaction->tid.hex() << ' ' << transaction->status << ' ' << transaction->user << '|'
        << transaction->description << '|' << as_text(transaction->extension) << '\n';
    for (const auto& stored : transaction->stored) {
      out << "  " << stored.oid.hex() << ' ' << text_of(storage.load(stored.oid, transaction->tid))
          << '\n';
    }
  }
  return out.str();
}

// The same as a hash that tests/interop/filestorage.py makes of a file by ZODB's own means.
inline std::string digest_of(const Storage& storage) {
  Bytes all;
  const auto field = [&](ByteView bytes) {
    std::byte size[8];
    put_be<8>(size, bytes.size());
    append(all, size);
    append(all, bytes);
  };
  const auto number = [&](std::uint64_t value) {
    std::byte bytes[8];
    put_be<8>(bytes, value);
    field(bytes);
  };
  const auto cursor = storage.transactions(kNoTid, kMaxTid, false);
  while (const auto transaction = cursor->next()) {
    number(transaction->tid.value);
    field(as_bytes(std::string_view(&transaction->status, 1)));
    field(as_bytes(transaction->user));
    field(as_bytes(transaction->description));
    field(transaction->extension);
    for (const auto& stored : transaction->stored) {
      number(stored.oid.value);
      field(as_bytes(text_of(storage.load(stored.oid, transaction->tid))));
    }
  }
  return sha256_hex(all);
}

// The error that `fn` throws, as code and sentence.
template <typename Fn>
std::pair<ErrorCode, std::string> error_of(Fn fn) {
  try {
    fn();
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  ADD_FAILURE() << "nothing was thrown";
  return {ErrorCode::kFailed, ""};
}

}  // namespace zbig::test
