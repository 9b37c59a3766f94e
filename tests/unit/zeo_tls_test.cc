// SPDX-License-Identifier: BSD-3-Clause
#include <cstdlib>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/python.h"
#include "tests/support/temp_dir.h"
#include "tests/support/zeo_server.h"
#include "zodb/error.h"
#include "zodb/zeo/zeo.h"

// TLS to a real ZEO server, with certificates of each side's own that the other trusts.

namespace zbig {
namespace {

class ZeoTls : public testing::Test {
 protected:
  void SetUp() override {
    if (std::system("openssl version > /dev/null 2>&1") != 0) GTEST_SKIP() << "needs openssl";
    certificate("server", "127.0.0.1", "IP:127.0.0.1");
    certificate("client", "client", "DNS:client.example");
    certificate("stranger", "stranger", "DNS:stranger.example");
    server_ = test::ZeoServer::start({.conf = "msgpack true\n<ssl>\ncertificate " + pem("server") +
                                              "\nkey " + key("server") + "\nauthenticate " +
                                              pem("client") + "\n</ssl>\n"});
    if (!server_) GTEST_SKIP() << test::Python::kMissing;
  }

  std::string pem(const std::string& name) const { return dir_ / (name + ".pem"); }
  std::string key(const std::string& name) const { return dir_ / (name + ".key"); }

  void certificate(const std::string& name, const std::string& subject, const std::string& alias) {
    const std::string command =
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
        "-subj '/CN=" +
        subject + "' -addext subjectAltName=" + alias + " -keyout '" + key(name) + "' -out '" +
        pem(name) + "' 2> /dev/null";
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  }

  std::string url(const std::string& trusted, const std::string& own) const {
    std::string url = server_->url() + "&wait_timeout=3&ssl_authenticate=" + pem(trusted);
    if (!own.empty()) url += "&ssl_certificate=" + pem(own) + "&ssl_key=" + key(own);
    return url;
  }

  static std::string failure(const std::string& url) {
    try {
      open_zeo(url, OpenMode::kRead)->sync();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  test::TempDir dir_;
  std::unique_ptr<test::ZeoServer> server_;
};

TEST_F(ZeoTls, CertificatesOfBothSides_DecideWhoIsServed) {
  const auto storage = open_zeo(url("server", "client"), OpenMode::kWrite);
  storage->sync();
  const Oid oid = storage->new_oid();
  const auto transaction = storage->begin({});
  const Bytes record(3 << 20, std::byte{7});
  transaction->store(oid, kNoTid, record);
  transaction->vote();
  const Tid tid = transaction->finish();
  EXPECT_EQ(open_zeo(url("server", "client"), OpenMode::kRead)->load(oid, tid)->data, record);

  EXPECT_THAT(failure(url("stranger", "client")), testing::HasSubstr("TLS: "));
  EXPECT_NE(failure(url("server", "stranger")), "");
  EXPECT_NE(failure(url("server", "")), "");
  EXPECT_NE(failure(server_->url() + "&wait_timeout=2"), "");
  EXPECT_THAT(failure(url("server", "client") + "&ssl_server_hostname=other.example"),
              testing::HasSubstr("TLS: "));
  EXPECT_EQ(failure(url("server", "client") +
                    "&ssl_server_hostname=other.example&ssl_check_hostname=false"),
            "");
  EXPECT_THAT(failure(url("missing", "client")), testing::HasSubstr("ssl_authenticate="));
}

}  // namespace
}  // namespace zbig
