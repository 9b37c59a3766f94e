// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/zeo/server_error.h"

#include <cerrno>

namespace zbig::zeo {
namespace {

// "ZODB.POSException.ConflictError", and what the exception was made of or holds.
struct Raised {
  std::string_view cls;
  Value info;

  bool is(std::string_view name) const {
    return cls.ends_with(name) &&
           (cls.size() == name.size() || cls[cls.size() - name.size() - 1] == '.');
  }
};

std::optional<Raised> raised(const Message& reply) {
  const auto parts = sequence(reply.args());
  if (!parts || parts->size() != 2 || !(*parts)[0].text()) return std::nullopt;
  return Raised{*(*parts)[0].text(), (*parts)[1]};
}

// What of it a person can read: text of at most some hundred bytes, oids and numbers.
std::string describe(Value value) {
  if (const auto number = value.integer()) return std::to_string(*number);
  if (const auto id = id_of(value); id && value.kind() == Kind::kBytes) return Oid{*id}.brief();
  const auto text = value.text();
  if (!text) return kind_name(value.kind());
  std::string out;
  for (const char c : text->substr(0, 300)) out += c >= ' ' && c < 0x7f ? c : '?';
  return out;
}

std::string describe(const Raised& raised) {
  std::string out(raised.cls.substr(0, 100));
  const auto args = raised.info.items();
  const bool map = raised.info.kind() == Kind::kDict;
  std::string details;
  for (std::size_t i = map ? 1 : 0; i < args.size() && i < 8; i += map ? 2 : 1) {
    if (args[i].is_none() || sequence(args[i])) continue;
    details += (details.empty() ? "" : ", ") + describe(args[i]);
  }
  return details.empty() ? out : out + " (" + details + ")";
}

}  // namespace

bool is_key_error(const Message& reply) {
  if (!reply.is_exception()) return false;
  const auto error = raised(reply);
  return error && error->is("POSKeyError");
}

void throw_conflict(Value map, const std::string& context) {
  Oid oid;
  Tid committed;
  Tid base;
  if (const auto value = map.get("oid")) oid.value = id_of(*value).value_or(0);
  const auto value = map.get("serials");
  const auto serials = value ? sequence(*value) : std::nullopt;
  if (serials && serials->size() == 2) {
    committed.value = id_of((*serials)[0]).value_or(0);
    base.value = id_of((*serials)[1]).value_or(0);
  }
  throw Conflict("object " + oid.brief() + " in " + context + ": stored by transaction " +
                     committed.hex() + " since it was read at " + base.hex(),
                 oid, committed, base);
}

void throw_conflict(const Message& key_error, const std::string& context) {
  Oid oid;
  const auto error = raised(key_error);
  const auto args = error ? sequence(error->info) : std::nullopt;
  if (args && !args->empty()) oid.value = id_of((*args)[0]).value_or(0);
  throw Conflict("object " + oid.brief() + " in " + context + ": it is not there any more", oid,
                 kNoTid, kNoTid);
}

void throw_server_error(const Message& reply, const std::string& context) {
  const auto error = raised(reply);
  if (!error) throw Corrupt(context + ": the server's exception has no name");
  const std::string sentence = context + ": " + describe(*error);
  if (error->is("ConflictError") || error->is("ReadConflictError")) {
    throw_conflict(error->info, context);
  }
  if (error->is("BTreesConflictError")) throw Conflict(sentence, Oid{}, kNoTid, kNoTid);
  if (error->is("ReadOnlyError")) throw ReadOnly(context + ": the server's storage is read-only");
  if (error->is("POSKeyError")) throw NotFound(sentence);
  if (error->is("OSError") || error->is("IOError")) {
    const auto args = sequence(error->info);
    const auto number = args && !args->empty() ? (*args)[0].integer().value_or(0) : 0;
    if (number == ENOSPC || number == EDQUOT) throw NoSpace(sentence);
  }
  throw Failed(sentence);
}

}  // namespace zbig::zeo
