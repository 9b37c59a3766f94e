// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/error.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <system_error>

namespace zbig {

void throw_errno(const std::string& sentence, int errno_value) {
  const std::string text = sentence + ": " + std::generic_category().message(errno_value);
  switch (errno_value) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      throw NoSpace(text);
    case EROFS:
      throw ReadOnly(text);
    case ENOENT:
    case ENOTDIR:
      throw NotFound(text);
    case ENOTCONN:
    case ECONNRESET:
    case ECONNREFUSED:
    case EPIPE:
    case ESHUTDOWN:
    case ETIMEDOUT:
      throw Unavailable(text);
    default:
      throw Failed(text);
  }
}

void rethrow_with_context(const std::string& context) {
  try {
    throw;
  } catch (Error& error) {
    error.add_context(context);
    throw;
  } catch (const std::system_error& error) {
    throw_errno(context, error.code().value());
  } catch (const std::bad_alloc&) {
    throw Failed(context + ": out of memory");
  } catch (const std::exception& error) {
    throw Failed(context + ": " + error.what());
  }
}

void broken_invariant(const char* sentence, const char* file, int line) {
  std::fprintf(stderr, "zbig: broken invariant at %s:%d: %s\n", file, line, sentence);
  std::abort();
}

}  // namespace zbig
