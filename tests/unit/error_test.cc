// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/error.h"

#include <cerrno>
#include <system_error>

#include <gtest/gtest.h>

#include "zodb/storage.h"

namespace zbig {
namespace {

ErrorCode code_of_errno(int value) {
  try {
    throw_errno("write Data.fs", value);
  } catch (const Error& error) {
    return error.code();
  }
}

TEST(Error, Errno_BecomesTheCodeOfTheTable) {
  EXPECT_EQ(code_of_errno(ENOSPC), ErrorCode::kNoSpace);
  EXPECT_EQ(code_of_errno(EDQUOT), ErrorCode::kNoSpace);
  EXPECT_EQ(code_of_errno(EROFS), ErrorCode::kReadOnly);
  EXPECT_EQ(code_of_errno(ENOENT), ErrorCode::kNotFound);
  EXPECT_EQ(code_of_errno(ENOTCONN), ErrorCode::kUnavailable);
  EXPECT_EQ(code_of_errno(ECONNREFUSED), ErrorCode::kUnavailable);
  EXPECT_EQ(code_of_errno(EIO), ErrorCode::kFailed);
}

TEST(Error, Context_KeepsClassAndFieldsAndComesFirst) {
  try {
    try {
      throw Conflict("object 0x1", Oid{1}, Tid{3}, Tid{2});
    } catch (...) {
      rethrow_with_context("commit of /A");
    }
  } catch (const Conflict& conflict) {
    EXPECT_STREQ(conflict.what(), "commit of /A: object 0x1");
    EXPECT_EQ(conflict.committed, Tid{3});
    EXPECT_EQ(conflict.code(), ErrorCode::kConflict);
  }
}

TEST(Error, ContextOfForeignExceptions_MakesThemErrors) {
  const auto rethrown = [](auto exception) {
    try {
      try {
        throw exception;
      } catch (...) {
        rethrow_with_context("read");
      }
    } catch (const Error& error) {
      return std::pair(error.code(), std::string(error.what()));
    }
  };
  EXPECT_EQ(rethrown(std::system_error(ENOSPC, std::generic_category())).first,
            ErrorCode::kNoSpace);
  EXPECT_EQ(rethrown(std::bad_alloc()).second, "read: out of memory");
  EXPECT_EQ(rethrown(std::runtime_error("odd")).second, "read: odd");
}

TEST(OpenStorage_BadName, GivesCodeAndSentence) {
  struct Case {
    const char* url;
    ErrorCode code;
    const char* sentence;
  };
  for (const Case& c : {
           Case{"", ErrorCode::kInvalid, "a database is named by a path or a URL"},
           Case{"neo://name@m:1", ErrorCode::kUnsupported, "not in this version"},
           Case{"postgresql://x", ErrorCode::kUnsupported, "not in this version"},
           Case{"http://x/y", ErrorCode::kInvalid, "no kind of database is named by 'http://'"},
           Case{"file://host/x", ErrorCode::kInvalid, "absolute path"},
           Case{"file:///x?y=1", ErrorCode::kInvalid, "takes no options"},
           Case{"file:///x%4", ErrorCode::kInvalid, "two hex digits"},
           Case{"file:///x%00", ErrorCode::kInvalid, "two hex digits"},
       }) {
    try {
      open_storage(c.url, OpenMode::kRead);
      ADD_FAILURE() << c.url << " opened";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), c.code) << c.url;
      EXPECT_NE(std::string(error.what()).find(c.sentence), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace zbig
