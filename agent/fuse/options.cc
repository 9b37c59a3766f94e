// SPDX-License-Identifier: BSD-3-Clause
#include "agent/fuse/options.h"

#include <cstdlib>
#include <filesystem>
#include <iostream>

#include <boost/program_options.hpp>

#include "zodb/error.h"

namespace zbig::fuse {
namespace {

namespace po = boost::program_options;

// Absolute, with the folder's symbolic links resolved: the program changes to / and the kernel's
// list of mounts shows resolved names. The last part may not exist yet.
std::string absolute(const std::string& path) {
  if (path.empty()) return {};
  const std::filesystem::path full = std::filesystem::absolute(path);
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::canonical(full.parent_path(), error);
  if (error) throw_errno("folder of " + path, error.value());
  return (folder / full.filename()).string();
}

mode_t parse_mode(const std::string& text) {
  char* end = nullptr;
  const unsigned long mode = std::strtoul(text.c_str(), &end, 8);
  if (text.empty() || *end != '\0' || mode > 0777) throw Invalid("--mode " + text + ": not a mode");
  return static_cast<mode_t>(mode);
}

}  // namespace

Options parse_options(int argc, char** argv) {
  Options options;
  std::string mode;
  unsigned dead_timeout = 0;
  po::options_description described("Options");
  po::options_description_easy_init add = described.add_options();
  add("uri", po::value(&options.uri)->value_name("URI"),
      "the NBD export, as nbd+unix:///NAME?socket=PATH");
  add("control", po::value(&options.control)->value_name("SOCKET"),
      "where to listen for control requests");
  add("read-only", po::bool_switch(&options.read_only),
      "no writes, even where the server allows them");
  add("connections",
      po::value(&options.connections)->default_value(options.connections)->value_name("N"),
      "NBD connections, if the server allows several");
  add("dead-timeout", po::value(&dead_timeout)->default_value(60)->value_name("SECONDS"),
      "how long requests wait for a server that is gone, before they fail (0: for ever)");
  add("read-ahead",
      po::value(&options.read_ahead_kb)->default_value(options.read_ahead_kb)->value_name("KIB"),
      "how far the kernel reads ahead (only root can raise it above 128)");
  add("mode", po::value(&mode)->default_value("0600")->value_name("MODE"),
      "permissions of the device");
  add("allow-other", po::bool_switch(&options.allow_other),
      "other users may use it, as its mode says");
  add("foreground", po::bool_switch(&options.foreground), "stay in the foreground");
  add("log", po::value(&options.log)->value_name("FILE"), "append messages to FILE");
  add("help", "this text");
  add("version", "the version");
  po::options_description hidden;
  hidden.add_options()("path", po::value(&options.path));
  po::positional_options_description positional;
  positional.add("path", 1);
  po::variables_map given;
  try {
    po::options_description all;
    all.add(described).add(hidden);
    po::store(po::command_line_parser(argc, argv).options(all).positional(positional).run(), given);
    po::notify(given);
  } catch (const po::error& error) {
    throw Invalid(error.what());
  }
  if (given.count("help") != 0) {
    std::cout << "usage: zbig-fuse --uri URI [OPTIONS] PATH\n\n"
                 "Makes PATH (new, or an empty file) the device that an NBD export is.\n\n"
              << described;
    std::exit(0);
  }
  if (given.count("version") != 0) {
    std::cout << "zbig-fuse " << ZBIG_VERSION << "\n";
    std::exit(0);
  }
  if (options.uri.empty()) throw Invalid("--uri is missing");
  if (options.path.empty()) throw Invalid("PATH is missing");
  if (options.connections < 1 || options.connections > 16) {
    throw Invalid("--connections must be 1 to 16");
  }
  options.mode = parse_mode(mode);
  if (options.read_only) options.mode &= static_cast<mode_t>(~0222);
  options.dead_timeout = std::chrono::seconds(dead_timeout);
  options.path = absolute(options.path);
  options.control = absolute(options.control);
  options.log = absolute(options.log);
  return options;
}

}  // namespace zbig::fuse
