// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include "zodb/error.h"
#include "zodb/zeo/options.h"

namespace zbig::zeo {
namespace {

TEST(ZeoOptions, EverySpelling_HasOneUrl) {
  const std::pair<const char*, const char*> cases[] = {
      {"zeo://localhost:8100", "zeo://localhost:8100?storage=1"},
      {"zeo://localhost", "zeo://localhost:9991?storage=1"},
      {"zeo://[::1]:8100?storage=main", "zeo://[::1]:8100?storage=main"},
      {"zeo:///run/zeo.sock", "zeo:///run/zeo.sock?storage=1"},
      {"zeo:///run//a/../zeo%20.sock?wait_timeout=5&storage=1",
       "zeo:///run/zeo%20.sock?storage=1&wait_timeout=5"},
      {"zeo://h:1?cache_size=2MB&storage=a%26b", "zeo://h:1?storage=a%26b&cache_size=2097152"},
      {"zeo://h:1?ssl_key=/k&ssl_authenticate=/ca.pem&ssl_check_hostname=no",
       "zeo://h:1?storage=1&ssl_authenticate=/ca.pem&ssl_key=/k&ssl_check_hostname=false"},
  };
  for (const auto& [url, canonical] : cases) {
    EXPECT_EQ(Options::parse(url).url(), canonical);
    EXPECT_EQ(Options::parse(canonical).url(), canonical);
  }
}

TEST(ZeoOptions, Nonsense_IsInvalidAndSaysWhy) {
  for (const char* url :
       {"zeo://", "zeo://:8100", "zeo://h:0", "zeo://h:65536", "zeo://h:x", "zeo://h/path",
        "zeo://[::1", "zeo://h:1?storage", "zeo://h:1?=1", "zeo://h:1?blob_dir=/b",
        "zeo://h:1?storage=1&storage=2", "zeo://h:1?wait_timeout=0", "zeo://h:1?wait_timeout=-1",
        "zeo://h:1?cache_size=5TB", "zeo://h:1?cache_size=9999999GB", "zeo://h:1?ssl_key=/k",
        "zeo://h:1?ssl_authenticate=/a&ssl_x=1", "zeo:///%00"}) {
    EXPECT_THROW(Options::parse(url), Invalid) << url;
  }
  EXPECT_THROW(Options::parse("zeo:///" + std::string(120, 'x')), Invalid);
}

}  // namespace
}  // namespace zbig::zeo
