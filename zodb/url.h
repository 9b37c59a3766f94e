// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <map>
#include <string>
#include <string_view>

// Pieces of storage URLs, for every backend.

namespace zbig {

// The characters that %XX stands for. `url` is what a message names. Throws Invalid.
std::string percent_decode(std::string_view text, std::string_view url);
// With %XX for what is no plain character of a path, and for those of `reserved`.
std::string percent_encode(std::string_view text, std::string_view reserved = "");

// Is the database kept by a server that other programs use too? Then these commit while we have it
// open for writing, and opening it does not tell whether the server is there.
bool is_shared_url(std::string_view url);

// "a=1&b=x%20y" by name, decoded. Throws Invalid for a name that is there twice or has no value.
std::map<std::string, std::string> parse_query(std::string_view query, std::string_view url);

}  // namespace zbig
