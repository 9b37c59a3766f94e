// SPDX-License-Identifier: BSD-3-Clause
#include "tests/support/pickle_repr.h"

#include <stdexcept>

namespace zbig::test {
namespace {

std::string repr_items(Value value, const char* open, const char* close) {
  std::string out = open;
  for (std::size_t i = 0; i < value.size(); ++i) {
    if (i > 0) out += value.kind() == Kind::kDict && i % 2 == 1 ? ": " : ", ";
    out += repr(value[i]);
  }
  return out + close;
}

std::string repr_ref(Value value) {
  const auto ref = value.ref();
  if (!ref) return "ref(foreign)";
  std::string out = "ref(" + std::to_string(ref->oid.value);
  if (ref->form == RefForm::kModuleName) out += ", by name";
  if (ref->form != RefForm::kOid) out += ", " + ref->cls.str();
  return out + ")";
}

}  // namespace

std::string repr(Value value) {
  switch (value.kind()) {
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return *value.boolean() ? "True" : "False";
    case Kind::kInt:
      return std::to_string(*value.integer());
    case Kind::kFloat:
      return std::to_string(*value.real());
    case Kind::kBytes:
      return "b'" + std::string(*value.text()) + "'";
    case Kind::kString:
      return "'" + std::string(*value.text()) + "'";
    case Kind::kText:
      return "u'" + std::string(*value.text()) + "'";
    case Kind::kTuple:
      return repr_items(value, "(", ")");
    case Kind::kList:
      return repr_items(value, "[", "]");
    case Kind::kDict:
      return repr_items(value, "{", "}");
    case Kind::kClass:
      return "<" + value.class_name()->str() + ">";
    case Kind::kRef:
      return repr_ref(value);
    case Kind::kObject:
      return repr_items(value, "object(", ")");
    case Kind::kOpaque:
      return "opaque";
  }
  throw std::logic_error("a kind without a name");
}

void rewrite(RecordWriter& writer, Value value) {
  switch (value.kind()) {
    case Kind::kNone:
      return writer.none();
    case Kind::kBool:
      return writer.boolean(*value.boolean());
    case Kind::kInt:
      return writer.integer(*value.integer());
    case Kind::kBytes:
    case Kind::kString:
      return writer.bytes(*value.bytes());
    case Kind::kText:
      return writer.text(*value.text());
    case Kind::kTuple:
      writer.begin_tuple(value.size());
      for (const Value item : value.items()) rewrite(writer, item);
      return writer.end_tuple();
    case Kind::kDict:
      writer.begin_dict(value.size() / 2);
      for (const Value item : value.items()) rewrite(writer, item);
      return writer.end_dict();
    case Kind::kClass:
      return writer.global(*value.class_name());
    case Kind::kRef:
      return writer.ref(value.ref()->oid, value.ref()->cls, value.ref()->form);
    case Kind::kObject:
      rewrite(writer, value[0]);
      rewrite(writer, value[1]);
      writer.reduce();
      if (value.size() == 2) return;
      rewrite(writer, value[2]);
      return writer.build();
    default:
      throw std::logic_error(std::string("cannot write ") + kind_name(value.kind()));
  }
}

}  // namespace zbig::test
