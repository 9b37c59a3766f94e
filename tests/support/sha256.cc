// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/sha256.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

namespace zbig::test {

namespace {

constexpr std::array<int, 64> kPrimes = {
    2,   3,   5,   7,   11,  13,  17,  19,  23,  29,  31,  37,  41,  43,  47,  53,
    59,  61,  67,  71,  73,  79,  83,  89,  97,  101, 103, 107, 109, 113, 127, 131,
    137, 139, 149, 151, 157, 163, 167, 173, 179, 181, 191, 193, 197, 199, 211, 223,
    227, 229, 233, 239, 241, 251, 257, 263, 269, 271, 277, 281, 283, 293, 307, 311};

// The first 32 bits of the fraction of a root: what the standard's constants are made of.
std::uint32_t fraction(long double root) {
  return static_cast<std::uint32_t>((root - std::floor(root)) * 4294967296.0L);
}

struct Constants {
  std::array<std::uint32_t, 64> round;
  std::array<std::uint32_t, 8> initial;
};

const Constants& constants() {
  static const Constants made = [] {
    Constants out;
    for (std::size_t i = 0; i < 64; ++i) {
      out.round[i] = fraction(std::cbrt(static_cast<long double>(kPrimes[i])));
    }
    for (std::size_t i = 0; i < 8; ++i) {
      out.initial[i] = fraction(std::sqrt(static_cast<long double>(kPrimes[i])));
    }
    return out;
  }();
  return made;
}

void digest_block(std::array<std::uint32_t, 8>& state, const std::byte* block) {
  const auto& k = constants().round;
  std::array<std::uint32_t, 64> w;
  for (std::size_t i = 0; i < 16; ++i) w[i] = static_cast<std::uint32_t>(get_be<4>(block + 4 * i));
  for (std::size_t i = 16; i < 64; ++i) {
    const auto a = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
    const auto b = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + a + w[i - 7] + b;
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (std::size_t i = 0; i < 64; ++i) {
    const auto s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const auto t1 = h + s1 + ((e & f) ^ (~e & g)) + k[i] + w[i];
    const auto s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const auto t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
  }
  const std::array<std::uint32_t, 8> mixed = {a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < 8; ++i) state[i] += mixed[i];
}

}  // namespace

std::string sha256_hex(ByteView bytes) {
  auto state = constants().initial;
  const auto bits = static_cast<std::uint64_t>(bytes.size()) * 8;
  while (bytes.size() >= 64) {
    digest_block(state, bytes.data());
    bytes = bytes.subspan(64);
  }
  Bytes rest(bytes.begin(), bytes.end());
  rest.push_back(std::byte{0x80});
  while (rest.size() % 64 != 56) rest.push_back(std::byte{0});
  rest.resize(rest.size() + 8);
  put_be<8>(&rest[rest.size() - 8], bits);
  for (std::size_t at = 0; at < rest.size(); at += 64) digest_block(state, &rest[at]);

  std::string out;
  for (const auto word : state) {
    for (int shift = 28; shift >= 0; shift -= 4) out += "0123456789abcdef"[word >> shift & 15];
  }
  return out;
}

}  // namespace zbig::test
