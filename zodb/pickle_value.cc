// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/pickle_value.h"

#include <bit>

#include "zodb/pickle_node.h"

namespace zbig {

const char* kind_name(Kind kind) {
  switch (kind) {
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return "a bool";
    case Kind::kInt:
      return "an integer";
    case Kind::kFloat:
      return "a float";
    case Kind::kBytes:
      return "bytes";
    case Kind::kString:
      return "a byte string";
    case Kind::kText:
      return "a text";
    case Kind::kTuple:
      return "a tuple";
    case Kind::kList:
      return "a list";
    case Kind::kDict:
      return "a dict";
    case Kind::kClass:
      return "a class";
    case Kind::kRef:
      return "a persistent reference";
    case Kind::kObject:
      return "an object";
    case Kind::kOpaque:
      break;
  }
  return "something that zbig does not understand";
}

Kind Value::kind() const { return node_->kind; }
std::size_t Value::offset() const { return node_->offset; }

std::optional<bool> Value::boolean() const {
  if (kind() != Kind::kBool) return std::nullopt;
  return node_->number != 0;
}

std::optional<std::int64_t> Value::integer() const {
  if (kind() != Kind::kInt && kind() != Kind::kBool) return std::nullopt;
  return static_cast<std::int64_t>(node_->number);
}

std::optional<double> Value::real() const {
  if (kind() != Kind::kFloat) return std::nullopt;
  return std::bit_cast<double>(node_->number);
}

std::optional<std::string_view> Value::text() const {
  if (kind() != Kind::kBytes && kind() != Kind::kString && kind() != Kind::kText)
    return std::nullopt;
  return node_->chars();
}

std::optional<ByteView> Value::bytes() const {
  const auto found = text();
  if (!found) return std::nullopt;
  return as_bytes(*found);
}

std::span<const Value> Value::items() const {
  switch (kind()) {
    case Kind::kTuple:
    case Kind::kList:
    case Kind::kDict:
    case Kind::kObject:
      return node_->values();
    default:
      return {};
  }
}

std::optional<Value> Value::get(std::string_view key) const {
  if (kind() != Kind::kDict) return std::nullopt;
  const auto pairs = items();
  for (std::size_t i = pairs.size(); i >= 2; i -= 2)
    if (pairs[i - 2].text() == key) return pairs[i - 1];
  return std::nullopt;
}

std::optional<std::span<const Value>> Value::tuple(std::size_t size) const {
  if (kind() != Kind::kTuple || items().size() != size) return std::nullopt;
  return items();
}

namespace {

ClassName split_name(std::string_view module_and_name) {
  const std::size_t line = module_and_name.find('\n');
  return {module_and_name.substr(0, line), module_and_name.substr(line + 1)};
}

}  // namespace

std::optional<ClassName> Value::class_name() const {
  if (kind() != Kind::kClass) return std::nullopt;
  return split_name(node_->chars());
}

std::optional<ClassId> Value::class_id() const {
  if (kind() != Kind::kClass) return std::nullopt;
  return node_->cls;
}

std::optional<PersistentRef> Value::ref() const {
  if (kind() != Kind::kRef || node_->form == RefForm::kForeign) return std::nullopt;
  PersistentRef ref{Oid{node_->number}, node_->form, {}, node_->cls};
  if (node_->form != RefForm::kOid) ref.cls = split_name(node_->chars());
  return ref;
}

}  // namespace zbig
