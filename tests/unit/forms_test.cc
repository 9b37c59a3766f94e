// SPDX-License-Identifier: BSD-3-Clause

#include "cli/forms.h"

#include <chrono>

#include <gtest/gtest.h>

#include "cli/table.h"
#include "cli/verb.h"
#include "tests/support/memory_storage.h"

namespace zbig {
namespace {

// A storage of which only the newest transaction is known.
class HeadOnly : public test::MemoryStorage {
 public:
  explicit HeadOnly(Tid head) : head_(head) {}
  Tid last_tid() const override { return head_; }

 private:
  Tid head_;
};

Tid tid_at(std::chrono::sys_time<std::chrono::nanoseconds> time) { return Tid::from_time(time); }

TEST(Forms, ParseSize_UnitsAndBytes_GiveBytes) {
  EXPECT_EQ(parse_size("0", "--size"), 0u);
  EXPECT_EQ(parse_size("4096", "--size"), 4096u);
  EXPECT_EQ(parse_size("4K", "--size"), 4096u);
  EXPECT_EQ(parse_size("2m", "--size"), 2u << 20);
  EXPECT_EQ(parse_size("7E", "--size"), 7ull << 60);
}

TEST(Forms, ParseSize_NonsenseOrTooLarge_ThrowsInvalid) {
  for (const char* text : {"", "K", "-1", "+1", "1.5M", "4KB", "0x10", " 1", "8E",
                           "9223372036854775808", "99999999999999999999"}) {
    EXPECT_THROW(parse_size(text, "--size"), Error) << text;
  }
}

TEST(Forms, ParseShape_Lists_GiveExtents) {
  EXPECT_EQ(parse_shape("7"), (std::vector<std::uint64_t>{7}));
  EXPECT_EQ(parse_shape("1000,0,3"), (std::vector<std::uint64_t>{1000, 0, 3}));
  for (const char* text : {"", ",", "1,", ",1", "1,,2", "1x2", "-1"}) {
    EXPECT_THROW(parse_shape(text), Error) << text;
  }
}

TEST(Forms, ParseWhen_TidUpToTheHead_IsThatTid) {
  const HeadOnly storage(Tid{0x0405e70909b08933});
  EXPECT_EQ(parse_when("head", storage), storage.last_tid());
  EXPECT_EQ(parse_when("0405e70909b08933", storage), storage.last_tid());
  EXPECT_EQ(parse_when("0000000000000001", storage), Tid{1});
  EXPECT_THROW(parse_when("0405e70909b08934", storage), NotFound);
}

TEST(Forms, ParseWhen_Time_IsTheMomentInUtc) {
  using namespace std::chrono_literals;
  const HeadOnly storage(kMaxTid);
  const std::chrono::sys_days day = std::chrono::year(2026) / 1 / 2;
  EXPECT_EQ(parse_when("2026-01-02", storage), tid_at(day));
  EXPECT_EQ(parse_when("2026-01-02T03:04", storage), tid_at(day + 3h + 4min));
  EXPECT_EQ(parse_when("2026-01-02 03:04:05", storage), tid_at(day + 3h + 4min + 5s));
  EXPECT_EQ(parse_when("2026-01-02T03:04:05Z", storage), tid_at(day + 3h + 4min + 5s));
  EXPECT_EQ(parse_when("2026-01-02T03:04:05+01:30", storage), tid_at(day + 1h + 34min + 5s));
  EXPECT_EQ(parse_when("2026-01-02T03:04-0100", storage), tid_at(day + 4h + 4min));
}

// What zbig prints as the time of a transaction is cut to microseconds, and must still name it.
TEST(Forms, ParseWhen_TimeThatWasPrintedForATid_NamesIt) {
  for (const std::uint64_t value :
       {0x0405e70909b08933ull, 0x040d351d207fc100ull, 0x040d351d22944e00ull}) {
    const Tid tid{value};
    const HeadOnly storage(tid);
    EXPECT_EQ(parse_when(tid.iso(), storage), tid) << tid.iso();
    EXPECT_LE(parse_since(tid.iso(), storage), tid) << tid.iso();
  }
}

TEST(Forms, ParseWhen_TimeAfterTheHead_IsTheHead) {
  const HeadOnly storage(Tid{0x0405e70909b08933});
  EXPECT_EQ(parse_when("2200-01-01", storage), storage.last_tid());
}

TEST(Forms, ParseWhen_Age_CountsBackFromNow) {
  const HeadOnly storage(kMaxTid);
  const auto now = std::chrono::system_clock::now();
  for (const auto& [text, seconds] :
       {std::pair("45s", 45), std::pair("10m", 600), std::pair("2h", 7200),
        std::pair("3d", 3 * 86400), std::pair("2w", 14 * 86400)}) {
    const auto moment = parse_when(text, storage).to_time();
    const auto error = moment - (now - std::chrono::seconds(seconds));
    EXPECT_LT(std::chrono::abs(error), std::chrono::seconds(10)) << text;
  }
  EXPECT_EQ(parse_when("99999999999999999d", storage).to_time() < now, true);
}

TEST(Forms, ParseWhen_Nonsense_ThrowsInvalid) {
  const HeadOnly storage(kMaxTid);
  for (const char* text :
       {"", "HEAD", "yesterday", "405e70909b08933", "2026-13-01", "2026-02-30", "2026-1-1",
        "2026-01-01T24:00", "2026-01-01T00:00:60", "2026-01-01T00:00:00.", "2026-01-01T00:00Zx",
        "2026-01-01T00:00:00.1234567890", "2h30m", "h", "-2h", "2y", "1600-01-01"}) {
    EXPECT_THROW(parse_when(text, storage), Error) << text;
  }
}

TEST(Forms, HumanSize_RoundsToOneDigit) {
  EXPECT_EQ(human_size(0), "0 B");
  EXPECT_EQ(human_size(1023), "1023 B");
  EXPECT_EQ(human_size(1536), "1.5 KiB");
  EXPECT_EQ(human_size(1048575), "1.0 MiB");
  EXPECT_EQ(human_size(4ull << 50), "4.0 PiB");
}

TEST(Message, OneLine_ControlCharacters_AreShownAsHex) {
  EXPECT_EQ(one_line("a\nb\x1b[1mc\x7f"), "a\\x0ab\\x1b[1mc\\x7f");
  EXPECT_EQ(one_line("\xc3\xa9"), "\xc3\xa9");
}

TEST(Table, DisplayWidth_Utf8_CountsCodePoints) {
  EXPECT_EQ(display_width("\xc3\xa9t\xc3\xa9"), 3u);
}

int no_run(const Arguments&) { return 0; }
constexpr Option kTestOptions[] = {{"json", '\0', "", ""},
                                   {"output", 'o', "FILE", ""},
                                   {"nbd", '\0', "auto|/dev/nbdN", "", "auto"}};
const Verb kTestVerb{"test", "URL [VOLUME]", "", kTestOptions, no_run};

Arguments parsed(std::vector<std::string> words) { return parse_arguments(kTestVerb, words); }

TEST(Arguments, Parse_ValueThatMayBeLeftOut_IsTakenOnlyIfItIsOne) {
  for (const auto& words : std::vector<std::vector<std::string>>{{"--nbd", "u", "v"},
                                                                 {"u", "v", "--nbd"},
                                                                 {"u", "--nbd", "auto", "v"},
                                                                 {"u", "v", "--nbd=auto"}}) {
    EXPECT_EQ(parsed(words).get("nbd"), "auto");
    EXPECT_EQ(parsed(words).positional(), (std::vector<std::string>{"u", "v"}));
  }
  EXPECT_EQ(parsed({"--nbd", "/dev/nbd12", "u"}).get("nbd"), "/dev/nbd12");
  EXPECT_EQ(parsed({"--nbd", "/dev/nbd1x", "u"}).positional().size(), 2u);
  EXPECT_FALSE(parsed({"u", "--", "--nbd"}).has("nbd"));
}

TEST(Arguments, Parse_OptionsAnywhere_AreFound) {
  const Arguments arguments = parsed({"--json", "u", "-o", "f", "v"});
  EXPECT_EQ(arguments.positional(), (std::vector<std::string>{"u", "v"}));
  EXPECT_TRUE(arguments.has("json"));
  EXPECT_EQ(arguments.get("output"), "f");
  EXPECT_EQ(parsed({"u", "--output=g"}).get("output"), "g");
  EXPECT_EQ(parsed({"u", "-o", "-"}).get("output"), "-");
  EXPECT_EQ(parsed({"--", "-u"})[0], "-u");
  EXPECT_EQ(parsed({"-"})[0], "-");
}

TEST(Arguments, Parse_WrongOnes_ThrowInvalidWithTheUsage) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{},
                                             {"u", "v", "w"},
                                             {"u", "--nothing"},
                                             {"u", "--js"},
                                             {"u", "-o"},
                                             {"u", "--json=1"}}) {
    try {
      parsed(words);
      FAIL() << words.size();
    } catch (const AdvisedError& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalid);
      EXPECT_EQ(error.advice.substr(0, 17), "usage: zbig test ");
    }
  }
}

}  // namespace
}  // namespace zbig
