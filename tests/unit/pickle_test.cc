// SPDX-License-Identifier: BSD-3-Clause
#include <chrono>

#include <gtest/gtest.h>

#include "tests/support/format_page.h"
#include "tests/support/pickle_repr.h"
#include "zodb/error.h"
#include "zodb/payload.h"
#include "zodb/pickle_reader.h"
#include "zodb/pickle_writer.h"
#include "zodb/record.h"

namespace zbig {
namespace {

using namespace std::string_literals;
using test::hex_examples;
using test::repr;
using test::rewrite;

std::string read(const std::string& pickle) {
  PickleReader reader(as_bytes(pickle));
  return repr(reader.next());
}

Bytes bytes_of(std::string_view text) {
  Bytes bytes;
  append(bytes, text);
  return bytes;
}

std::string repeat(std::string_view text, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) out += text;
  return out;
}

// --- the page

TEST(PicklePage, EachExample_IsReadAndWrittenAgainToTheSameBytes) {
  const auto examples = hex_examples("pickle.md");
  ASSERT_GE(examples.size(), 12u);
  for (const auto& [name, bytes] : examples) {
    const ObjectRecord record = ObjectRecord::parse(bytes);
    ASSERT_TRUE(record.id()) << name;
    RecordWriter writer(detect_flavour(record.data()), record.cls());
    rewrite(writer, record.state());
    EXPECT_EQ(as_text(writer.finish()), as_text(record.data())) << name;
  }
}

TEST(PicklePage, Examples_SayWhatThePageSays) {
  const auto examples = hex_examples("pickle.md");
  const auto state = [&](const char* name) {
    const ObjectRecord record = ObjectRecord::parse(examples.at(name));
    return std::string(record.id()->name().name) + " " + repr(record.state());
  };
  const std::string tree = ", BTrees.LOBTree.LOBTree)";
  EXPECT_EQ(state("zbigfile-py3"), "ZBigFile (2097152, ref(5" + tree + ")");
  EXPECT_EQ(state("zbigfile-py2-protocol1"), "ZBigFile (2097152, ref(71" + tree + ")");
  EXPECT_EQ(state("zblk0-py3"), "ZBlk0 b'Hello'");
  EXPECT_EQ(state("zdata-py2"), "ZData 'three'");
  EXPECT_EQ(state("zblk1-py2-protocol3"), "ZBlk1 ref(4, BTrees.IOBTree.IOBTree)");
  EXPECT_EQ(state("zblk0-zlib"), "ZBlk0 b'" + std::string(100, 'a') + "'");
  EXPECT_EQ(state("zbigarray-py3"),
            "ZBigArray ({u'_dtype': object(<numpy.dtype>, (u'i8', False, True), "
            "(3, u'<', None, None, None, -1, -1, 0)), u'_shape': (10), u'_order': u'C', "
            "u'_stridev': (8)}, {u'zfile': ref(3, wendelin.bigfile.file_zodb.ZBigFile)})");
}

TEST(PicklePage, Examples_HaveTheFlavourOfTheirName) {
  for (const auto& [name, bytes] : hex_examples("pickle.md")) {
    if (is_compressed(bytes)) continue;
    const Flavour flavour = name.ends_with("protocol1")     ? Flavour::kPython2Protocol1
                            : name.ends_with("protocol2")   ? Flavour::kPython2Protocol2
                            : name.find("py2") != name.npos ? Flavour::kPython2Protocol3
                                                            : Flavour::kPython3;
    EXPECT_EQ(detect_flavour(bytes), flavour) << name;
  }
}

// --- reading

TEST(PickleReader, EachOpcode_GivesItsValue) {
  struct Case {
    std::string pickle;
    const char* value;
  };
  const std::string oid7 = "\0\0\0\0\0\0\0\7"s;
  for (const Case& c : {
           Case{"N.", "None"},
           Case{"\x80\x02\x88.", "True"},
           Case{"I00\n.", "False"},
           Case{"I01\n.", "True"},
           Case{"I1\n.", "1"},
           Case{"I-2147483649\n.", "-2147483649"},
           Case{"I9223372036854775807\n.", "9223372036854775807"},
           Case{"I9223372036854775808\n.", "opaque"},
           Case{"L5L\n.", "5"},
           Case{"L-5\n.", "-5"},
           Case{"J\xff\xff\xff\xff.", "-1"},
           Case{"J\x70\x11\x01\x00."s, "70000"},
           Case{"K\xff.", "255"},
           Case{"M\xff\xff.", "65535"},
           Case{"\x8a\x00."s, "0"},
           Case{"\x8a\x05\x00\x00\x00\x80\x00."s, "2147483648"},
           Case{"\x8a\x05\xff\xff\xff\x7f\xff.", "-2147483649"},
           Case{"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80."s, "-9223372036854775808"},
           Case{"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00."s, "opaque"},
           Case{"\x8b\x01\x00\x00\x00\x05."s, "5"},
           Case{"F1.5\n.", "1.500000"},
           Case{"G\x3f\xf8\x00\x00\x00\x00\x00\x00."s, "1.500000"},
           Case{"U\x02hi.", "'hi'"},
           Case{"T\x02\x00\x00\x00hi."s, "'hi'"},
           Case{"C\x02hi.", "b'hi'"},
           Case{"B\x02\x00\x00\x00hi."s, "b'hi'"},
           Case{"X\x03\x00\x00\x00h\xc3\xa9."s, "u'h\xc3\xa9'"},
           Case{"S'a\\'\\\\\\n\\x41\\101\\q'\n.", "'a'\\\nAA\\q'"},
           Case{"S\"it's\"\n.", "'it's'"},
           Case{"Vh\xe9\\u20ac\\U0001f600\n.", "u'h\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80'"},
           Case{").", "()"},
           Case{"NN\x86.", "(None, None)"},
           Case{"(NNNNt.", "(None, None, None, None)"},
           Case{"(t.", "()"},
           Case{"].", "[]"},
           Case{"]Na.", "[None]"},
           Case{"](K\x01K\x02"
                "e.",
                "[1, 2]"},
           Case{"(K\x01K\x02l.", "[1, 2]"},
           Case{"}.", "{}"},
           Case{"}K\x01Ns.", "{1: None}"},
           Case{"}(K\x01NK\x02Nu.", "{1: None, 2: None}"},
           Case{"(K\x01Nd.", "{1: None}"},
           Case{"cm\nC\n.", "<m.C>"},
           Case{"cm\nC\n(tR.", "object(<m.C>, ())"},
           Case{"cm\nC\n)\x81}b.", "object(<m.C>, (), {})"},
           Case{"cm\nC\n)\x81K\x01K\x02s.", "object(<m.C>, ())"},
           Case{"(im\nC\n.", "object(<m.C>, ())"},
           Case{"(K\x01im\nC\n}b.", "object(<m.C>, (1), {})"},
           Case{"(cm\nC\nK\x01o.", "object(<m.C>, (1))"},
           Case{"\x82\x05.", "opaque"},
           Case{"\x83\x05\x05.", "opaque"},
           Case{"\x84\x05\x05\x05\x05.", "opaque"},
           Case{"NK\x01"
                "0.",
                "None"},
           Case{"N(K\x01K\x02"
                "1.",
                "None"},
           Case{"N2\x86.", "(None, None)"},
           Case{"K\x05p7\ng7\n\x86.", "(5, 5)"},
           Case{"K\x05q\x03h\x03\x86.", "(5, 5)"},
           Case{"K\x05r\x03\x00\x00\x00j\x03\x00\x00\x00\x86."s, "(5, 5)"},
           Case{"C\x08" + oid7 + "Q.", "ref(7)"},
           Case{"Pwhatever\n.", "ref(foreign)"},
       })
    EXPECT_EQ(read(c.pickle), c.value) << c.pickle;
}

TEST(PickleReader, References_AreReadInEveryForm) {
  const std::string oid = "\0\0\0\0\0\0\0\7"s;
  const std::string cls = "cBTrees.LOBTree\nLOBTree\n";
  const std::string expected = "ref(7, BTrees.LOBTree.LOBTree)";
  EXPECT_EQ(read("(U\x08" + oid + cls + "tQ."), expected);
  EXPECT_EQ(read("C\x08" + oid + cls + "\x86Q."), expected);
  EXPECT_EQ(read("X\x08\0\0\0"s + oid + cls + "\x86Q."), expected);
  EXPECT_EQ(read("C\x08" + oid +
                 "U\x0e"
                 "BTrees.LOBTreeU\7LOBTree\x86\x86Q."),
            "ref(7, by name, BTrees.LOBTree.LOBTree)");
  EXPECT_EQ(read("C\x08" + oid +
                 "X\x0e\0\0\0"s
                 "BTrees.LOBTreeX\7\0\0\0"s
                 "LOBTree\x86\x86Q."),
            "ref(7, by name, BTrees.LOBTree.LOBTree)");
  EXPECT_EQ(read("C\x08" + oid + "Q."), "ref(7)");
  EXPECT_EQ(read("](U\1wC\x08" + oid +
                 "\x85"
                 "eQ."),
            "ref(foreign)");
  EXPECT_EQ(read("](U\1mU\1dC\x08" + oid + cls +
                 "\x87"
                 "eQ."),
            "ref(foreign)");
  EXPECT_EQ(read("]C\x08" + oid + "aQ."), "ref(foreign)");
}

TEST(PickleReader, TwoPickles_ShareTheMemo) {
  const std::string pair = "cm\nC\nq\0.h\0."s;
  PickleReader reader(as_bytes(pair));
  EXPECT_EQ(repr(reader.next()), "<m.C>");
  EXPECT_FALSE(reader.at_end());
  EXPECT_EQ(repr(reader.next()), "<m.C>");
  EXPECT_TRUE(reader.at_end());
}

TEST(PickleReader, ContainerInItself_BecomesOpaque) {
  EXPECT_EQ(read("]q\0h\0a."s), "opaque");
  EXPECT_EQ(read("]q\0(h\0h\0e."s), "opaque");
  EXPECT_EQ(read("]q\0h\0\x85"
                 "a."s),
            "opaque");
  EXPECT_EQ(read("}q\0K\1h\0s."s), "opaque");
  EXPECT_EQ(read("cm\nC\n)Rq\0}K\1h\0sb."s), "opaque");
  EXPECT_EQ(read("cm\nC\n)Rq\0h\0b."s), "opaque");
  // A list that is whole before it is named twice is no such thing.
  EXPECT_EQ(read("]Naq\0h\0\x86."s), "([None], [None])");
}

TEST(PickleReader, HostileInput_GivesOneSentenceWithThePlace) {
  struct Case {
    std::string pickle;
    const char* sentence;
  };
  for (const Case& c : {
           Case{"", "pickle at offset 0: it runs past the end"},
           Case{"N", "pickle at offset 1: it runs past the end"},
           Case{".", "offset 0: the stack is empty"},
           Case{"\x80", "runs past the end"},
           Case{"\x80\x04N.", "offset 0: protocol 4"},
           Case{"B\xff\xff\xff\xff....", "offset 0: it runs past the end"},
           Case{"NT\xff\xff\xff\x7f....", "offset 1: it runs past the end"},
           Case{"X\x05\x00\x00\x00"
                "abc."s,
                "runs past the end"},
           Case{"\x8b\xff\xff\xff\xff.", "runs past the end"},
           Case{"U\x05"
                "abc.",
                "runs past the end"},
           Case{"I5", "a line runs past the end"},
           Case{"I5x\n.", "an integer is no number"},
           Case{"I\n.", "an integer is no number"},
           Case{"Fx\n.", "a float is no number"},
           Case{"S'abc\n.", "not well formed"},
           Case{"S'\\x4'\n.", "not well formed"},
           Case{"V\\u12\n.", "not well formed"},
           Case{"V\\U00110000\n.", "not well formed"},
           Case{"cm\nC", "a line runs past the end"},
           Case{"\x85.", "the stack is empty"},
           Case{"NN\x87.", "the stack is empty"},
           Case{"N(\x85.", "the stack is empty"},
           Case{"t.", "there is no mark"},
           Case{"(N.", "inside a container"},
           Case{"a.", "the stack is empty"},
           Case{"Na.", "the stack is empty"},
           Case{"s.", "the stack is empty"},
           Case{"NNs.", "the stack is empty"},
           Case{"NNa.", "items for None"},
           Case{"}(Nu.", "a key without a value"},
           Case{"(Nd.", "a key without a value"},
           Case{"R.", "the stack is empty"},
           Case{"b.", "the stack is empty"},
           Case{"(o.", "the stack is empty"},
           Case{"h\x05.", "memo index 5 was never stored"},
           Case{"Nq\x09.", "a memo index out of range"},
           Case{"Nr\xff\xff\xff\xff.", "a memo index out of range"},
           Case{"Np99999999999999999999\n.", "a memo index is no number"},
           Case{"q\0."s, "the stack is empty"},
           Case{"U\x03"
                "abcQ.",
                "object id is not 8 bytes"},
           Case{"NN\x86Q.", "ref(foreign)"},
           Case{"NcA\nB\n\x86Q.", "object id is not 8 bytes"},
           Case{"X\x08\0\0\0\xc3\xa9\0\0\0\0\0\7Q."s, "beyond ASCII"},
           Case{"\xff.", "unknown opcode 0xff"},
           Case{repeat("]", 2000) + repeat("a", 1999) + ".", "nest too deep"},
           Case{"N" + repeat("\x85", 2000) + ".", "nest too deep"},
           Case{repeat("N", 3u << 20) + ".", "more than 2097152 values"},
           Case{"N" + repeat("2", 3u << 20) + ".", "more than 2097152 values"},
           Case{"Nq\0"s + repeat("h\0"s, 3u << 20) + ".", "more than 2097152 values"},
           Case{repeat("(", 3u << 20) + ".", "more than 2097152 values"},
       }) {
    std::string said;
    try {
      said = read(c.pickle);
    } catch (const Error& error) {
      said = error.what();
    }
    EXPECT_NE(said.find(c.sentence), std::string::npos) << c.pickle.substr(0, 40) << ": " << said;
  }
}

TEST(PickleReader, NamesJoinedAgainAndAgain_TakeNoMoreThanLinearMemory) {
  const std::string name(1u << 20, 'x');
  std::string pickle = "X\0\0\x10\0"s + name + "q\0X\1\0\0\0mq\1"s;
  pickle += "C\x08\0\0\0\0\0\0\0\7h\1h\0\x86\x86Q."s;
  EXPECT_THROW(read(pickle), Corrupt);
}

// A hundred tuples, each of the one before twice: 2^100 ways through, but 100 values.
TEST(PickleReader, SharedValues_AreReadInLinearTime) {
  const std::string pickle = "N" + repeat("2\x86", 100) + ".";
  PickleReader reader(as_bytes(pickle));
  Value value = reader.next();
  for (int depth = 0; depth < 100; ++depth) value = value[1];
  EXPECT_TRUE(value.is_none());
}

// --- records

TEST(ObjectRecord, EachFormOfClass_GivesTheName) {
  const std::string name2 = "U\x1awendelin.bigfile.file_zodbU\5ZBlk0\x86";
  const std::string cls = "cwendelin.bigfile.file_zodb\nZBlk0\n";
  for (const std::string& meta : {cls, "(" + cls + "Nt", cls + ")\x86", cls + "N\x85\x86",
                                  name2 + "N\x86", name2 + ")\x86", name2 + "N\x85\x86"}) {
    const ObjectRecord record = ObjectRecord::parse(bytes_of(meta + ".N."));
    EXPECT_TRUE(record.is(KnownClass::kZBlk0)) << meta;
  }
}

TEST(ObjectRecord, AliasesOfAClass_AreTheSameClassSpelledDifferently) {
  const auto zblk = ClassId::find({"wendelin.bigfile.file_zodb", "ZBlk"});
  ASSERT_TRUE(zblk);
  EXPECT_EQ(zblk->known(), KnownClass::kZBlk0);
  EXPECT_TRUE(zblk->same_class(ClassId::of(KnownClass::kZBlk0)));
  EXPECT_FALSE(*zblk == ClassId::of(KnownClass::kZBlk0));
  EXPECT_EQ(zblk->name().name, "ZBlk");
  EXPECT_EQ(ClassId::find({"BTrees._LOBTree", "LOBucket"})->known(), KnownClass::kLOBucket);
  EXPECT_FALSE(ClassId::find({"BTrees.LOBTree", "ZBlk0"}));
}

TEST(ObjectRecord, Damage_IsCorrupt) {
  for (const std::string& bad :
       {""s, "N."s, "cm\nC\n."s, "N.N."s, "cm\nC\n.N.N."s, ".zgarbage"s, ".z"s, "K\1K\2\x86.N."s})
    EXPECT_THROW(ObjectRecord::parse(bytes_of(bad)), Corrupt) << bad;
}

TEST(ObjectRecord, CompressedRecordCutOrExtended_IsCorrupt) {
  const Bytes whole = hex_examples("pickle.md").at("zblk0-zlib");
  for (std::size_t size = 2; size < whole.size(); ++size)
    EXPECT_THROW(inflate_record(Bytes(whole.begin(), whole.begin() + static_cast<long>(size))),
                 Corrupt)
        << size;
  Bytes longer = whole;
  longer.push_back(std::byte{0});
  EXPECT_THROW(inflate_record(longer), Corrupt);
  EXPECT_THROW(inflate_record(whole, 100), Corrupt);
  EXPECT_EQ(inflate_record(whole).size(), inflate_record(whole, 146).size());
}

// --- payloads

struct Writer {
  const char* name;
  Flavour flavour;
};
constexpr Writer kWriters[] = {{"py3", Flavour::kPython3},
                               {"py2 protocol 3", Flavour::kPython2Protocol3},
                               {"py2 protocol 2", Flavour::kPython2Protocol2},
                               {"py2 protocol 1", Flavour::kPython2Protocol1}};

Bytes payload_record(Flavour flavour, ClassId cls, const std::string& payload) {
  const PayloadEnvelope envelope = payload_envelope(flavour, cls, payload.size());
  Bytes record = envelope.head;
  append(record, payload);
  append(record, envelope.tail);
  return record;
}

TEST(Payload, EveryFlavourClassAndSize_IsFoundInTheHead) {
  for (const Writer& writer : kWriters) {
    for (const char* name : {"ZBlk0", "ZBlk", "ZData"}) {
      const ClassId cls = *ClassId::find({"wendelin.bigfile.file_zodb", name});
      for (const std::size_t size : {0, 1, 2, 60, 255, 256, 4096, 100'000}) {
        const std::string payload(size, 'q');
        const Bytes record = payload_record(writer.flavour, cls, payload);
        const auto head = payload_head(
            ByteView(record).first(std::min(record.size(), kPayloadHeadSize)), record.size());
        ASSERT_TRUE(head) << writer.name << " " << name << " " << size;
        EXPECT_EQ(head->cls, cls);
        EXPECT_EQ(as_text(ByteView(record).subspan(head->offset, head->length)), payload);
        const auto found = find_payload(record);
        ASSERT_TRUE(found);
        EXPECT_EQ(found->offset, head->offset);
        EXPECT_EQ(found->length, head->length);
        // The same as writing it value by value.
        RecordWriter slow(writer.flavour, cls.name());
        slow.bytes(as_bytes(payload));
        EXPECT_EQ(as_text(slow.finish()), as_text(record));
        EXPECT_EQ(detect_flavour(record), writer.flavour);
      }
    }
  }
}

TEST(Payload, WhatTheHeadCannotTell_NeedsTheWholeRecord) {
  const std::string py3 = "\x80\3cwendelin.bigfile.file_zodb\nZBlk0\nq\0.\x80\3C\5Helloq\1."s;
  ASSERT_TRUE(payload_head(as_bytes(py3), py3.size()));
  for (const std::string& record : {
           py3 + "x",                                                  // too long
           py3.substr(0, py3.size() - 1),                              // too short
           ".z" + py3,                                                 // compressed
           "\x80\3cwendelin.bigfile.file_zodb\nZBlk1\nq\0.\x80\3N."s,  // other class
           "cwendelin.bigfile.file_zodb\nZBlk0\n)\x86.U\2hi."s,        // other form
           "cwendelin.bigfile.file_zodb\nZBlk0\n.X\2\0\0\0hi."s,       // text
       })
    EXPECT_FALSE(payload_head(as_bytes(record), record.size())) << record;
  for (std::size_t size = 0; size < 43; ++size)
    EXPECT_FALSE(payload_head(as_bytes(py3.substr(0, size)), py3.size())) << size;
  // A length that runs past the record.
  const std::string big =
      "\x80\3cwendelin.bigfile.file_zodb\nZBlk0\nq\0.\x80\3B\xff\xff\xff\xffHello"s;
  EXPECT_FALSE(payload_head(as_bytes(big), big.size()));
}

TEST(Payload, UnusualRecords_AreFoundByTheReader) {
  const std::string other_form = "cwendelin.bigfile.file_zodb\nZBlk0\n)\x86.U\2hi."s;
  const auto found = find_payload(as_bytes(other_form));
  ASSERT_TRUE(found);
  EXPECT_EQ(other_form.substr(found->offset, found->length), "hi");

  const std::string zblk1 = "cwendelin.bigfile.file_zodb\nZBlk1\n.N."s;
  EXPECT_FALSE(find_payload(as_bytes(zblk1)));
  const std::string none = "cwendelin.bigfile.file_zodb\nZBlk0\n.N."s;
  EXPECT_THROW(find_payload(as_bytes(none)), Corrupt);
}

// --- writing

TEST(RecordWriter, Integers_AreWrittenAsEachPythonDoes) {
  const auto written = [](Flavour flavour, std::int64_t value) {
    RecordWriter writer(flavour, {"m", "C"});
    writer.integer(value);
    const Bytes record = writer.finish();
    const std::string text(as_text(record));
    return text.substr(text.find('.') + (flavour == Flavour::kPython2Protocol1 ? 1 : 3));
  };
  struct Case {
    std::int64_t value;
    std::string py3, py2;
  };
  for (const Case& c : {
           Case{0, "K\0."s, "K\0."s},
           Case{255, "K\xff.", "K\xff."},
           Case{256, "M\0\1."s, "M\0\1."s},
           Case{65535, "M\xff\xff.", "M\xff\xff."},
           Case{65536, "J\0\0\1\0."s, "J\0\0\1\0."s},
           Case{-1, "J\xff\xff\xff\xff.", "J\xff\xff\xff\xff."},
           Case{-2147483648, "J\0\0\0\x80."s, "J\0\0\0\x80."s},
           Case{2147483648, "\x8a\5\0\0\0\x80\0."s, "I2147483648\n."},
           Case{-2147483649, "\x8a\5\xff\xff\xff\x7f\xff.", "I-2147483649\n."},
           Case{1099511627776, "\x8a\6\0\0\0\0\0\1."s, "I1099511627776\n."},
           Case{std::int64_t{1} << 62, "\x8a\x08\0\0\0\0\0\0\0\x40."s, "I4611686018427387904\n."},
           Case{INT64_MIN, "\x8a\x08\0\0\0\0\0\0\0\x80."s, "I-9223372036854775808\n."},
       }) {
    EXPECT_EQ(written(Flavour::kPython3, c.value), c.py3) << c.value;
    EXPECT_EQ(written(Flavour::kPython2Protocol3, c.value), c.py2) << c.value;
    EXPECT_EQ(written(Flavour::kPython2Protocol1, c.value), c.py2) << c.value;
    EXPECT_EQ(read(written(Flavour::kPython3, c.value)), std::to_string(c.value));
  }
}

TEST(RecordWriter, MoreThan256MemoNumbers_GoOnInFourBytes) {
  for (const Writer& flavour : kWriters) {
    RecordWriter writer(flavour.flavour, {"m", "C"});
    writer.begin_tuple(300);
    for (std::uint64_t i = 0; i < 300; ++i) writer.ref(Oid{i / 2}, {"BTrees.LOBTree", "LOBTree"});
    writer.end_tuple();
    const Bytes bytes = writer.finish();
    const ObjectRecord record = ObjectRecord::parse(bytes);
    for (std::uint64_t i = 0; i < 300; ++i)
      ASSERT_EQ(record.state()[i].ref()->oid, Oid{i / 2}) << flavour.name;
    RecordWriter again(flavour.flavour, record.cls());
    rewrite(again, record.state());
    EXPECT_EQ(again.finish(), bytes);
  }
}

}  // namespace
}  // namespace zbig
