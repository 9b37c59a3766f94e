// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "nbdkit-plugin/export_table.h"
#include "nbdkit-plugin/file.h"

// The operations of docs/control-protocol.md, without the socket.

namespace zbig {

struct ControlReply {
  std::string line;  // JSON, without the newline
  // An open file for the asker, or null.
  std::shared_ptr<const File> file;
  // What is left to do when the reply was sent; may be empty. Throws nothing.
  std::function<void()> afterwards;
};

// Answers one line. Whatever the line is, the answer is a reply; throws nothing but bad_alloc.
ControlReply answer_control(ExportTable& exports, std::string_view line);

// A reply that says no: for what is wrong before there is a request.
std::string control_refusal(ErrorCode code, const std::string& sentence);

}  // namespace zbig
