// SPDX-License-Identifier: BSD-3-Clause

#include "bigfile/dtype.h"

#include <gtest/gtest.h>

namespace zbig {
namespace {

TEST(DType, ParseDtype_SimpleTypes_GivesWhatNumpyGives) {
  // text, numpy.dtype(text).str, numpy.dtype(text).itemsize
  const struct {
    const char* text;
    const char* str;
    std::uint64_t item_size;
  } rows[] = {
      {"f8", "<f8", 8},    {"<f8", "<f8", 8},   {">f8", ">f8", 8},   {"=i4", "<i4", 4},
      {"u1", "|u1", 1},    {"uint8", "|u1", 1}, {">u1", "|u1", 1},   {"bool", "|b1", 1},
      {"?", "|b1", 1},     {"c16", "<c16", 16}, {"S10", "|S10", 10}, {"U3", "<U3", 12},
      {"V16", "|V16", 16}, {"int16", "<i2", 2}, {"|i8", "<i8", 8},   {"complex64", "<c8", 8},
  };
  for (const auto& row : rows) {
    const auto dtype = parse_dtype(row.text);
    ASSERT_TRUE(dtype) << row.text;
    EXPECT_EQ(dtype->str, row.str) << row.text;
    EXPECT_EQ(dtype->item_size, row.item_size) << row.text;
  }
}

TEST(DType, ParseDtype_AnythingElse_GivesNothing) {
  for (const char* text : {"", "f", "f3", "i16", "O", "M8[ns]", "S0", "S", "V99999999999", "x4",
                           "f8 ", "<", "<<f8", "u01", "[('a','<i4')]"}) {
    EXPECT_FALSE(parse_dtype(text)) << text;
  }
}

}  // namespace
}  // namespace zbig
