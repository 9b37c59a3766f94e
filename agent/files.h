// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <string>

#include <sys/types.h>

#include "agent/fd.h"

// Small files and folders of the state directory. Errors name the path (zbig::Error by errno).

namespace zbig {

// Throws Failed if the file is longer than `limit`, NotFound if it is not there.
std::string read_small_file(const std::string& path, std::size_t limit);

// Replaces the file: after a crash it is the old or the new one, and the new one once this has
// returned.
void write_file_atomically(const std::string& path, const std::string& text);

// Writes over what is in the file, which never gets shorter: spaces and a newline follow a text
// that is. Without fsync. Emptied first, a file would take new blocks each time, and ext4 hands the
// old text to the disk when it is closed and makes who opens it next wait for that: milliseconds,
// in every commit.
void write_over_file(const std::string& path, const std::string& text);

// Makes the folder and those above it that are missing, all with `mode`.
void make_directories(const std::string& path, mode_t mode);

// As make_directories, and makes sure that no other user can write there: throws Busy if the folder
// is another user's.
void make_private_directory(const std::string& path);

// Removes the folder and all that is in it; does not follow links.
void remove_tree(const std::string& path);

// What was made, renamed or removed in the folder survives loss of power.
void sync_directory(const std::string& path);

// Takes an exclusive lock on the file (made if need be), or returns nothing: somebody has it. The
// lock lasts as long as the descriptor or any copy of it, those in child processes included.
Fd try_lock_file(const std::string& path);

// An absolute path without links and dots, of something that need not exist (its folder must).
std::string canonical_path(const std::string& path);

}  // namespace zbig
