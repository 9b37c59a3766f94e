// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "zodb/ids.h"

// The one family of exceptions.
//
// An unexpected failure is thrown as one of the classes below; an expected outcome (a hole, an
// absent key, the end of a history) is a value. The sentence names the operation, the object, the
// tid and the place. Context is added where it is known: catch, `add_context` (or
// rethrow_with_context), `throw;`, and the exception stays what it was, derived class and all.
// Every boundary (plugin callback, HTTP handler, thread, main) catches once and turns the code into
// what its caller understands; `docs/errors.md` is the one table of those numbers.

namespace zbig {

enum class ErrorCode {
  kFailed,       // what no other code says: an I/O error, an exhausted limit
  kInvalid,      // the caller's argument is wrong
  kConflict,     // another transaction committed to the same object first
  kNotFound,     // no such database, volume, device, object or tid
  kBusy,         // locked or in use by somebody else
  kUnavailable,  // the storage or the server cannot be reached
  kCorrupt,      // bytes that no correct writer would have written
  kReadOnly,     // a write to what was opened for reading
  kNoSpace,      // the disk is full
  kUnsupported,  // well-formed, but not for this version
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& sentence)
      : std::runtime_error(sentence), code_(code), sentence_(sentence) {}
  ErrorCode code() const { return code_; }
  const char* what() const noexcept override { return sentence_.c_str(); }
  // Puts "CONTEXT: " before the sentence.
  void add_context(const std::string& context) { sentence_ = context + ": " + sentence_; }

 private:
  ErrorCode code_;
  std::string sentence_;
};

template <ErrorCode kCode>
class ErrorOf : public Error {
 public:
  explicit ErrorOf(const std::string& sentence) : Error(kCode, sentence) {}
};

using Failed = ErrorOf<ErrorCode::kFailed>;
using Invalid = ErrorOf<ErrorCode::kInvalid>;
using NotFound = ErrorOf<ErrorCode::kNotFound>;
using Busy = ErrorOf<ErrorCode::kBusy>;
using Unavailable = ErrorOf<ErrorCode::kUnavailable>;
using Corrupt = ErrorOf<ErrorCode::kCorrupt>;
using ReadOnly = ErrorOf<ErrorCode::kReadOnly>;
using NoSpace = ErrorOf<ErrorCode::kNoSpace>;
using Unsupported = ErrorOf<ErrorCode::kUnsupported>;

// A store (or a check of a read object) that found another revision than the one it was based on.
class Conflict : public ErrorOf<ErrorCode::kConflict> {
 public:
  Conflict(const std::string& sentence, Oid oid, Tid committed, Tid base)
      : ErrorOf(sentence), oid(oid), committed(committed), base(base) {}
  Oid oid;
  Tid committed;  // the revision that stands in the database
  Tid base;       // the revision that the failed store was made from
};

// Rethrows the exception being handled, the same object, with "CONTEXT: " before its sentence. What
// is no Error becomes one: a std::system_error by its errno as throw_errno does, anything else
// Failed. Only inside a catch block.
[[noreturn]] void rethrow_with_context(const std::string& context);

// Throws the error for `errno_value`: "SENTENCE: strerror". ENOSPC, EDQUOT, EFBIG -> NoSpace; EROFS
// -> ReadOnly; ENOENT, ENOTDIR -> NotFound; those of a connection that is gone -> Unavailable;
// anything else -> Failed.
[[noreturn]] void throw_errno(const std::string& sentence, int errno_value);

// Aborts the process with a sentence: an invariant of our own is broken. In release builds too.
[[noreturn]] void broken_invariant(const char* sentence, const char* file, int line);

inline void invariant(bool holds, const char* sentence, const char* file = __builtin_FILE(),
                      int line = __builtin_LINE()) {
  if (!holds) broken_invariant(sentence, file, line);
}

}  // namespace zbig
