// SPDX-License-Identifier: BSD-3-Clause

// Any bytes as a record. What the fast way finds, the thorough way finds too; a node that can be
// read can be written and read again.

#include <algorithm>

#include "zodb/btree.h"
#include "zodb/error.h"
#include "zodb/payload.h"
#include "zodb/record.h"

namespace {

using namespace zbig;

void look_for_payload(ByteView record) {
  const auto head =
      payload_head(record.first(std::min(record.size(), kPayloadHeadSize)), record.size());
  if (head)
    invariant(head->offset <= record.size() && head->length <= record.size() - head->offset,
              "a payload lies in its record");
  std::optional<PayloadHead> found;
  try {
    found = find_payload(record);
  } catch (const Error&) {
    return;  // the head does not look at what follows the payload
  }
  if (head)
    invariant(found && found->cls == head->cls && found->offset == head->offset &&
                  found->length == head->length,
              "both ways to a payload agree");
}

void read_node(const ObjectRecord& record) {
  const BTreeNode node = decode_btree_node(record);
  const Flavour flavour = detect_flavour(record.data());
  const BTreeNode again = decode_btree_node(ObjectRecord::parse(encode_btree_node(node, flavour)));
  invariant(again.shape == node.shape && again.keys == node.keys && again.refs == node.refs &&
                again.link == node.link,
            "a node that is written is read again");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ByteView input(reinterpret_cast<const std::byte*>(data), size);
  look_for_payload(input);
  try {
    read_node(ObjectRecord::parse(Bytes(input.begin(), input.end())));
  } catch (const Error&) {
  }
  return 0;
}
