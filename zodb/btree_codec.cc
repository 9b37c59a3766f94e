// SPDX-License-Identifier: BSD-3-Clause

// Records of BTree nodes: the grammar of docs/formats/btree.md, both ways.

#include <algorithm>
#include <limits>

#include "zodb/btree.h"
#include "zodb/bucket_scan.h"
#include "zodb/error.h"

namespace zbig {
namespace {

bool is_bucket(KnownClass cls) {
  return cls == KnownClass::kLOBucket || cls == KnownClass::kIOBucket;
}

std::string at_offset(Value value) { return " at offset " + std::to_string(value.offset()); }

Value item(Value value, std::size_t size, const char* what) {
  const auto items = value.tuple(size);
  if (!items)
    throw Corrupt(std::string(what) + " is " + kind_name(value.kind()) + " of " +
                  std::to_string(value.size()) + " items, not a tuple of " + std::to_string(size) +
                  at_offset(value));
  return (*items)[0];
}

std::span<const Value> tuple_of(Value value, const char* what) {
  if (value.kind() != Kind::kTuple)
    throw Corrupt(std::string(what) + " is " + kind_name(value.kind()) + ", not a tuple" +
                  at_offset(value));
  return value.items();
}

// Decodes into `node`, whose class says the range of its keys.
class Decoder {
 public:
  explicit Decoder(BTreeNode& node)
      : node_(node),
        small_keys_(node.cls.known() == KnownClass::kIOBTree ||
                    node.cls.known() == KnownClass::kIOBucket) {}

  void tree(Value state) {
    if (state.is_none()) {
      node_.shape = BTreeNode::Shape::kEmpty;
      return;
    }
    if (state.tuple(1)) {
      node_.shape = BTreeNode::Shape::kEmbedded;
      leaf(item(item(state, 1, "the state"), 1, "the list of children"), "the embedded bucket");
      if (node_.keys.empty()) throw Corrupt("the embedded bucket is empty");
      return;
    }
    node_.shape = BTreeNode::Shape::kTree;
    const Value children = item(state, 2, "the state");
    const auto items = tuple_of(children, "the list of children");
    if (items.size() % 2 == 0)
      throw Corrupt("the list of children does not begin and end with one");
    node_.refs.reserve(items.size() / 2 + 1);
    node_.keys.reserve(items.size() / 2);
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (i % 2 == 0)
        node_.refs.push_back(ref(items[i]));
      else
        add_key(items[i]);
    }
    node_.link = ref(state[1]);
  }

  void bucket(Value state) {
    node_.shape = BTreeNode::Shape::kBucket;
    leaf(state, "the state");
  }

 private:
  void leaf(Value state, const char* what) {
    const bool has_next = state.tuple(2).has_value();
    pairs(item(state, has_next ? 2 : 1, what));
    if (has_next) node_.link = ref(state[1]);
  }

  void pairs(Value value) {
    const auto items = tuple_of(value, "the list of keys and values");
    if (items.size() % 2 != 0) throw Corrupt("the last key has no value");
    node_.keys.reserve(items.size() / 2);
    node_.refs.reserve(items.size() / 2);
    for (std::size_t i = 0; i < items.size(); i += 2) {
      add_key(items[i]);
      node_.refs.push_back(ref(items[i + 1]));
    }
  }

  void add_key(Value value) {
    const auto key = value.integer();
    if (!key) throw Corrupt(std::string("a key is ") + kind_name(value.kind()) + at_offset(value));
    if (small_keys_ && (*key < std::numeric_limits<std::int32_t>::min() ||
                        *key > std::numeric_limits<std::int32_t>::max()))
      throw Corrupt("key " + std::to_string(*key) + " is too large for an IOBTree");
    if (!node_.keys.empty() && *key <= node_.keys.back())  // T1
      throw Corrupt("key " + std::to_string(*key) + " comes behind key " +
                    std::to_string(node_.keys.back()));
    node_.keys.push_back(*key);
  }

  static Ref ref(Value value) {
    const auto found = value.ref();
    if (!found)
      throw Corrupt(std::string("where a reference into this database should be is ") +
                    kind_name(value.kind()) + at_offset(value));
    if (found->form != RefForm::kOid && !found->id)
      throw Corrupt("a reference to object 0x" + found->oid.hex() + " of class " +
                    found->cls.str() + ", which has no place in a block table");
    return {found->oid, found->id, found->form};
  }

  BTreeNode& node_;
  bool small_keys_;
};

void write_ref(RecordWriter& writer, const Ref& ref) {
  writer.ref(ref.oid, ref.cls ? ref.cls->name() : ClassName{}, ref.form);
}

void write_leaf(RecordWriter& writer, const BTreeNode& node) {
  writer.begin_tuple(node.link ? 2 : 1);
  writer.begin_tuple(2 * node.keys.size());
  for (std::size_t i = 0; i < node.keys.size(); ++i) {
    writer.integer(node.keys[i]);
    write_ref(writer, node.refs[i]);
  }
  writer.end_tuple();
  if (node.link) write_ref(writer, *node.link);
  writer.end_tuple();
}

}  // namespace

BTreeNode decode_btree_node(const ObjectRecord& record) {
  const auto id = record.id();
  const bool known = id && (id->known() == KnownClass::kLOBTree || is_bucket(id->known()) ||
                            id->known() == KnownClass::kIOBTree);
  if (!known) throw Corrupt("it is a " + record.cls().str() + ", not a node of a BTree");
  BTreeNode node(*id);
  if (is_bucket(id->known()))
    Decoder(node).bucket(record.state());
  else
    Decoder(node).tree(record.state());
  return node;
}

Bytes encode_btree_node(const BTreeNode& node, Flavour flavour) {
  RecordWriter writer(flavour, node.cls.name());
  switch (node.shape) {
    case BTreeNode::Shape::kEmpty:
      writer.none();
      break;
    case BTreeNode::Shape::kEmbedded:
      writer.begin_tuple(1);
      writer.begin_tuple(1);
      write_leaf(writer, node);
      writer.end_tuple();
      writer.end_tuple();
      break;
    case BTreeNode::Shape::kBucket:
      write_leaf(writer, node);
      break;
    case BTreeNode::Shape::kTree:
      invariant(node.link.has_value(), "a tree with children has a first bucket");
      writer.begin_tuple(2);
      writer.begin_tuple(node.refs.size() + node.keys.size());
      for (std::size_t i = 0; i < node.refs.size(); ++i) {
        if (i > 0) writer.integer(node.keys[i - 1]);
        write_ref(writer, node.refs[i]);
      }
      writer.end_tuple();
      write_ref(writer, *node.link);
      writer.end_tuple();
      break;
  }
  return writer.finish();
}

std::shared_ptr<const LoadedNode> parse_loaded_node(Oid oid, Record record) {
  if (auto bucket = scan_bucket(record.data)) {
    return std::make_shared<const LoadedNode>(LoadedNode{oid, record.serial, std::move(*bucket)});
  }
  try {
    return std::make_shared<const LoadedNode>(LoadedNode{
        oid, record.serial, decode_btree_node(ObjectRecord::parse(std::move(record.data)))});
  } catch (const Error&) {
    rethrow_with_context(describe_object(oid, record.serial));
  }
}

}  // namespace zbig
