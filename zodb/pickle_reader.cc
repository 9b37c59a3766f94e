// SPDX-License-Identifier: BSD-3-Clause
#include "zodb/pickle_reader.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <memory_resource>
#include <vector>

#include "zodb/error.h"
#include "zodb/pickle_node.h"
#include "zodb/pickle_text.h"

namespace zbig {

using Node = Value::Node;

// The stack machine that a pickle is a program for. Opcodes and their meaning: Python's
// pickletools.py, and zodbpickle for B and C, which it took into protocol 3 for Python 2.
class PickleReader::Machine {
 public:
  explicit Machine(ByteView input) : in_(as_text(input)) {}

  Value next();
  std::size_t offset() const { return at_; }
  bool at_end() const { return at_ == in_.size(); }

 private:
  // --- input
  [[noreturn]] void corrupt(const std::string& what) const {
    throw Corrupt("pickle at offset " + std::to_string(op_at_) + ": " + what);
  }
  std::string_view take(std::uint64_t size) {  // R1
    if (size > in_.size() - at_) corrupt("it runs past the end of the record");
    const std::string_view taken = in_.substr(at_, static_cast<std::size_t>(size));
    at_ += taken.size();
    return taken;
  }
  std::uint64_t take_le(std::size_t size) {
    std::uint64_t value = 0;
    const std::string_view bytes = take(size);
    for (std::size_t i = size; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
    return value;
  }
  // Up to the end of the line, which is not part of it.
  std::string_view take_line() {
    const std::size_t end = in_.find('\n', at_);
    if (end == std::string_view::npos) corrupt("a line runs past the end of the record");
    const std::string_view line = in_.substr(at_, end - at_);
    at_ = end + 1;
    return line;
  }

  // --- values
  Node* push(Kind kind);
  Node* push_chars(Kind kind, std::string_view chars);
  Node* push_integer(std::int64_t value);
  void push_decoded(Kind kind, std::string_view chars);
  void push_class(std::string_view module_and_name);
  void push_again(Node* node) {
    count();
    stack_.push_back(node);
  }
  void count() {  // R2
    if (++count_ > kMaxValues) corrupt("more than " + std::to_string(kMaxValues) + " values");
  }
  Node* pop() {
    if (stack_.size() <= floor()) corrupt("the stack is empty");
    Node* top = stack_.back();
    stack_.pop_back();
    return top;
  }
  Node* top() {
    if (stack_.size() <= floor()) corrupt("the stack is empty");
    return stack_.back();
  }
  // Values below the last mark are out of reach.
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  std::size_t pop_mark() {
    if (marks_.empty()) corrupt("there is no mark on the stack");
    const std::size_t mark = marks_.back();
    marks_.pop_back();
    return mark;
  }
  // The last `size` values of the stack, moved into a container.
  void hold_top(Node* container, std::size_t size);
  void make_tuple(std::size_t size);
  void make_object(std::size_t first);
  void extend_top(Kind kind, std::size_t first);
  void build();

  // --- memo, references
  void put(std::uint64_t index);
  void get(std::uint64_t index);
  void make_ref(Node* id);
  std::uint64_t oid_of(const Node* node);
  std::uint64_t line_index();
  void line_integer(std::string_view line, bool is_long);
  void long_integer(std::string_view bytes);

  bool step();  // false: STOP

  std::string_view in_;
  std::size_t at_ = 0;
  std::size_t op_at_ = 0;
  std::size_t count_ = 0;
  std::pmr::monotonic_buffer_resource arena_;
  std::vector<Node*> stack_;
  std::vector<std::size_t> marks_;
  std::vector<Node*> memo_;
};

Node* PickleReader::Machine::push(Kind kind) {
  count();
  Node* node = std::pmr::polymorphic_allocator<>(&arena_).new_object<Node>();
  node->kind = kind;
  node->offset = op_at_;
  stack_.push_back(node);
  return node;
}

Node* PickleReader::Machine::push_chars(Kind kind, std::string_view chars) {
  if (chars.size() > 0xffffffff) corrupt("a string of more than 4 GiB");
  Node* node = push(kind);
  node->data = chars.data();
  node->size = static_cast<std::uint32_t>(chars.size());
  return node;
}

Node* PickleReader::Machine::push_integer(std::int64_t value) {
  Node* node = push(Kind::kInt);
  node->number = static_cast<std::uint64_t>(value);
  return node;
}

// A string that is not in the input as it is meant.
void PickleReader::Machine::push_decoded(Kind kind, std::string_view chars) {
  char* copy = static_cast<char*>(arena_.allocate(chars.size() + 1, 1));
  std::copy(chars.begin(), chars.end(), copy);
  push_chars(kind, {copy, chars.size()});
}

void PickleReader::Machine::push_class(std::string_view module_and_name) {
  Node* node = push_chars(Kind::kClass, module_and_name);
  node->cls = ClassId::find(*Value(node).class_name());
}

void PickleReader::Machine::hold_top(Node* container, std::size_t size) {
  if (size > container->capacity - container->size) {
    const std::size_t capacity =
        std::max<std::size_t>(container->size + size, std::size_t{2} * container->capacity);
    auto* grown = static_cast<Value*>(arena_.allocate(capacity * sizeof(Value), alignof(Value)));
    std::ranges::copy(container->values(), grown);
    container->data = grown;
    container->capacity = static_cast<std::uint32_t>(capacity);
  }
  auto* values = static_cast<Value*>(const_cast<void*>(container->data));
  for (std::size_t i = stack_.size() - size; i < stack_.size(); ++i) {
    stack_[i]->held = true;
    container->depth = std::max(container->depth, stack_[i]->depth + 1);
    values[container->size++] = Value(stack_[i]);
  }
  if (container->depth > kMaxDepth) corrupt("containers nest too deep");  // R3
  stack_.resize(stack_.size() - size);
}

void PickleReader::Machine::make_tuple(std::size_t size) {
  if (stack_.size() - floor() < size) corrupt("the stack is empty");
  Node* tuple = push(Kind::kTuple);
  stack_.pop_back();
  hold_top(tuple, size);
  stack_.push_back(tuple);
}

// From the callable at `first` on the stack and the tuple of arguments behind it.
void PickleReader::Machine::make_object(std::size_t first) {
  Node* object = push(Kind::kObject);
  stack_.pop_back();
  hold_top(object, stack_.size() - first);
  stack_.push_back(object);
}

// Puts all from `first` on the stack into the container below it.
void PickleReader::Machine::extend_top(Kind kind, std::size_t first) {
  if (first <= floor() || first > stack_.size()) corrupt("the stack is empty");
  Node* container = stack_[first - 1];
  // Now, since the container may be among them.
  for (std::size_t i = first; i < stack_.size(); ++i) stack_[i]->held = true;
  if (kind == Kind::kDict && (stack_.size() - first) % 2 != 0) corrupt("a key without a value");
  if (container->kind == kind && !container->held) {
    hold_top(container, stack_.size() - first);
    return;
  }
  if (container->kind == kind) {  // V1: what is put in may hold the container
    container->kind = Kind::kOpaque;
  } else if (container->kind != Kind::kObject && container->kind != Kind::kOpaque) {
    corrupt(std::string("items for ") + kind_name(container->kind));
  }
  stack_.resize(first);
}

void PickleReader::Machine::build() {
  if (stack_.size() - floor() < 2) corrupt("the stack is empty");
  Node* object = stack_[stack_.size() - 2];
  stack_.back()->held = true;  // now, since it may be the object
  if (object->kind == Kind::kObject && !object->held && object->size == 2) {
    hold_top(object, 1);
    return;
  }
  if (object->kind == Kind::kObject) object->kind = Kind::kOpaque;  // V1, or a second state
  stack_.pop_back();
}

void PickleReader::Machine::put(std::uint64_t index) {
  if (index >= in_.size() || index >= kMaxValues) corrupt("a memo index out of range");  // R2
  Node* node = top();
  if (index >= memo_.size()) memo_.resize(static_cast<std::size_t>(index) + 1);
  memo_[static_cast<std::size_t>(index)] = node;
}

void PickleReader::Machine::get(std::uint64_t index) {
  if (index >= memo_.size() || !memo_[static_cast<std::size_t>(index)])
    corrupt("memo index " + std::to_string(index) + " was never stored");
  push_again(memo_[static_cast<std::size_t>(index)]);
}

std::uint64_t PickleReader::Machine::line_index() {
  const std::string_view line = take_line();
  std::uint64_t index = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), index);
  if (error != std::errc() || end != line.data() + line.size())
    corrupt("a memo index is no number");
  return index;
}

void PickleReader::Machine::line_integer(std::string_view line, bool is_long) {
  if (!is_long && (line == "00" || line == "01")) {
    push(Kind::kBool)->number = line == "01";
    return;
  }
  if (is_long && line.ends_with('L')) line.remove_suffix(1);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), value);
  if (error == std::errc::invalid_argument || end != line.data() + line.size())
    corrupt("an integer is no number");
  if (error == std::errc())
    push_integer(value);
  else
    push(Kind::kOpaque);
}

void PickleReader::Machine::long_integer(std::string_view bytes) {
  if (bytes.size() > 8) {
    push(Kind::kOpaque);
    return;
  }
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i)
    value |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  const std::size_t bits = 8 * bytes.size();
  if (bits > 0 && bits < 64 && (value >> (bits - 1) & 1)) value |= ~std::uint64_t{0} << bits;
  push_integer(static_cast<std::int64_t>(value));
}

std::uint64_t PickleReader::Machine::oid_of(const Node* node) {
  const auto bytes = Value(node).bytes();
  if (!bytes || bytes->size() != 8) corrupt("a reference whose object id is not 8 bytes");
  // Python 2 text: ZODB takes it as ASCII.
  if (node->kind == Kind::kText && (get_be<8>(bytes->data()) & 0x8080808080808080))
    corrupt("a reference whose object id is text beyond ASCII");
  return get_be<8>(bytes->data());
}

void PickleReader::Machine::make_ref(Node* id) {
  const Value value(id);
  Node* ref = push(Kind::kRef);
  if (value.text()) {
    ref->form = RefForm::kOid;
    ref->number = oid_of(id);
    return;
  }
  ref->form = RefForm::kForeign;
  const auto pair = value.tuple(2);
  if (!pair) return;
  const Value cls = (*pair)[1];
  if (cls.kind() == Kind::kClass) {
    ref->form = RefForm::kClass;
    ref->data = cls.node()->data;
    ref->size = cls.node()->size;
    ref->cls = cls.node()->cls;
  } else if (const auto names = cls.tuple(2); names && (*names)[0].text() && (*names)[1].text()) {
    ref->form = RefForm::kModuleName;
    const ClassName name{*(*names)[0].text(), *(*names)[1].text()};
    // Shared names could be joined once for each of many references: that would not be linear.
    if (name.module.size() + name.name.size() > 1000) corrupt("a class name of over 1000 bytes");
    const std::string joined = std::string(name.module) + '\n' + std::string(name.name);
    auto* copy = static_cast<char*>(arena_.allocate(joined.size(), 1));
    std::ranges::copy(joined, copy);
    ref->data = copy;
    ref->size = static_cast<std::uint32_t>(joined.size());
    ref->cls = ClassId::find(name);
  } else {
    return;
  }
  ref->number = oid_of((*pair)[0].node());
}

bool PickleReader::Machine::step() {
  op_at_ = at_;
  const char op = take(1)[0];
  switch (op) {
    case '\x80':
      if (const std::uint64_t protocol = take_le(1); protocol > 3)
        corrupt("protocol " + std::to_string(protocol) + ", which ZODB does not write");
      return true;
    case '.':
      return false;

    // The stack.
    case '(':
      count();
      marks_.push_back(stack_.size());
      return true;
    case '0':
      if (!marks_.empty() && marks_.back() == stack_.size())
        pop_mark();
      else
        pop();
      return true;
    case '1':
      stack_.resize(pop_mark());
      return true;
    case '2':
      push_again(top());
      return true;

    // Numbers.
    case 'N':
      push(Kind::kNone);
      return true;
    case '\x88':
    case '\x89':
      push(Kind::kBool)->number = op == '\x88';
      return true;
    case 'I':
    case 'L':
      line_integer(take_line(), op == 'L');
      return true;
    case 'J':
      push_integer(static_cast<std::int32_t>(take_le(4)));
      return true;
    case 'K':
      push_integer(static_cast<std::int64_t>(take_le(1)));
      return true;
    case 'M':
      push_integer(static_cast<std::int64_t>(take_le(2)));
      return true;
    case '\x8a':
      long_integer(take(take_le(1)));
      return true;
    case '\x8b':
      long_integer(take(take_le(4)));
      return true;
    case 'F': {
      const std::string_view line = take_line();
      double value = 0;
      const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), value);
      if (error == std::errc::invalid_argument || end != line.data() + line.size())
        corrupt("a float is no number");
      push(Kind::kFloat)->number = std::bit_cast<std::uint64_t>(value);
      return true;
    }
    case 'G':
      push(Kind::kFloat)->number = get_be<8>(as_bytes(take(8)).data());
      return true;

    // Strings.
    case 'U':
      push_chars(Kind::kString, take(take_le(1)));
      return true;
    case 'T':
      push_chars(Kind::kString, take(take_le(4)));
      return true;
    case 'C':
      push_chars(Kind::kBytes, take(take_le(1)));
      return true;
    case 'B':
      push_chars(Kind::kBytes, take(take_le(4)));
      return true;
    case 'X':
      push_chars(Kind::kText, take(take_le(4)));
      return true;
    case 'S': {
      const auto chars = decode_string_literal(take_line());
      if (!chars) corrupt("a string literal is not well formed");
      push_decoded(Kind::kString, *chars);
      return true;
    }
    case 'V': {
      const auto chars = decode_raw_unicode_escape(take_line());
      if (!chars) corrupt("a unicode literal is not well formed");
      push_decoded(Kind::kText, *chars);
      return true;
    }

    // Containers.
    case ')':
      make_tuple(0);
      return true;
    case '\x85':
    case '\x86':
    case '\x87':
      make_tuple(static_cast<std::size_t>(op - '\x85') + 1);
      return true;
    case 't':
      make_tuple(stack_.size() - pop_mark());
      return true;
    case ']':
      push(Kind::kList);
      return true;
    case '}':
      push(Kind::kDict);
      return true;
    case 'l':
    case 'd': {
      const std::size_t first = pop_mark();
      const Kind kind = op == 'l' ? Kind::kList : Kind::kDict;
      Node* container = push(kind);
      stack_.pop_back();
      stack_.insert(stack_.begin() + static_cast<std::ptrdiff_t>(first), container);
      extend_top(kind, first + 1);
      return true;
    }
    case 'a':
      extend_top(Kind::kList, stack_.size() - 1);
      return true;
    case 'e':
      extend_top(Kind::kList, pop_mark());
      return true;
    case 's':
      extend_top(Kind::kDict, stack_.size() - 2);
      return true;
    case 'u':
      extend_top(Kind::kDict, pop_mark());
      return true;

    // Classes, objects, references.
    case 'c': {
      const std::string_view module = take_line();
      const std::string_view name = take_line();
      push_class({module.data(), module.size() + 1 + name.size()});
      return true;
    }
    case 'i': {
      const std::string_view module = take_line();
      const std::string_view name = take_line();
      make_tuple(stack_.size() - pop_mark());
      Node* arguments = pop();
      push_class({module.data(), module.size() + 1 + name.size()});
      stack_.push_back(arguments);
      make_object(stack_.size() - 2);
      return true;
    }
    case 'o': {
      const std::size_t first = pop_mark();
      if (first == stack_.size()) corrupt("the stack is empty");
      make_tuple(stack_.size() - first - 1);
      make_object(first);
      return true;
    }
    case 'R':
    case '\x81':
      if (stack_.size() - floor() < 2) corrupt("the stack is empty");
      make_object(stack_.size() - 2);
      return true;
    case 'b':
      build();
      return true;
    case 'P':
      take_line();
      push(Kind::kRef)->form = RefForm::kForeign;
      return true;
    case 'Q':
      make_ref(pop());
      return true;
    case '\x82':
      take(1);
      push(Kind::kOpaque);
      return true;
    case '\x83':
      take(2);
      push(Kind::kOpaque);
      return true;
    case '\x84':
      take(4);
      push(Kind::kOpaque);
      return true;

    // The memo.
    case 'p':
      put(line_index());
      return true;
    case 'q':
      put(take_le(1));
      return true;
    case 'r':
      put(take_le(4));
      return true;
    case 'g':
      get(line_index());
      return true;
    case 'h':
      get(take_le(1));
      return true;
    case 'j':
      get(take_le(4));
      return true;

    default:
      break;
  }
  static constexpr char kDigits[] = "0123456789abcdef";
  const auto code = static_cast<unsigned char>(op);
  corrupt(std::string("unknown opcode 0x") + kDigits[code >> 4] + kDigits[code & 15]);
}

Value PickleReader::Machine::next() {
  stack_.clear();
  marks_.clear();
  while (step()) {
  }
  if (!marks_.empty()) corrupt("it ends inside a container");
  return Value(pop());
}

PickleReader::PickleReader(ByteView input) : machine_(std::make_unique<Machine>(input)) {}
PickleReader::~PickleReader() = default;
PickleReader::PickleReader(PickleReader&&) noexcept = default;
PickleReader& PickleReader::operator=(PickleReader&&) noexcept = default;
Value PickleReader::next() { return machine_->next(); }
std::size_t PickleReader::offset() const { return machine_->offset(); }
bool PickleReader::at_end() const { return machine_->at_end(); }

}  // namespace zbig
