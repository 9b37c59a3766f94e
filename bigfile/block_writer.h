// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "bigfile/block_buffer.h"
#include "bigfile/chunk_table.h"
#include "bigfile/commit.h"
#include "bigfile/objects.h"
#include "bigfile/transaction_sink.h"
#include "zodb/btree_editor.h"
#include "zodb/pickle_writer.h"

// BlockWriter: the dirty blocks of one volume into a transaction, against one state of the
// database.
//
// Blocks come in ascending order. Of each, what is dirty is compared with the database; if nothing
// differs, nothing is stored, and the ZBlk is checked to be still the same when the transaction
// commits. Otherwise the block is written in the format that is wanted, as wendelin.core would:
//
//   in place   the block has that format already: its ZBlk is stored, and of a ZBlk1 the chunks
//              that differ, and the nodes of its chunk table where chunks come or go
//   new        a hole becomes a block: a new ZBlk, and its entry in the block table. A block of
//              zeros too: that it was written is part of what peers see (a bare file is as long as
//              its last block)
//   replaced   a new ZBlk takes the old one's place. The old one is stored too, without its data:
//              otherwise a peer that changes it in place meanwhile would lose its change without a
//              conflict, and a peer that caches it would not learn that it is out of use
//
// B1  A ZBlk1 is stored whenever anything below it is (C2).
// B2  Every store has the serial of the revision that the new content was computed from.

namespace zbig {

class BlockWriter {
 public:
  BlockWriter(Storage& storage, const Volume& volume, Tid head, BlockFormat format, Flavour flavour,
              TransactionSink& sink);

  // The ZBlk of a block as it is in the database, of blocks not written yet.
  struct Known {
    std::optional<BlockObject> zblk;  // nothing: a hole
  };
  std::vector<Known> known(std::span<const std::uint64_t> blocks) const;

  // Is everything that is dirty in the block equal to the database? A hole is equal to nothing.
  bool is_unchanged(const BlockBuffer& buffer, const Known& known) const;
  // Not to be stored, but it must stay as it is.
  void keep(const Known& known);
  // Stores a block that is_unchanged() said false of. Fills in the buffer what was not dirty.
  void write(BlockBuffer& buffer, const Known& known);

  // Stores the block table. Once, after the last block.
  void finish();

 private:
  enum class Target { kZBlk0, kZBlk1 };

  Oid new_oid() { return storage_.new_oid(); }
  void read_old(const Known& known, const BlockBuffer& buffer, std::uint64_t offset,
                std::span<std::byte> out) const;
  std::uint64_t fill(BlockBuffer& buffer, const Known& known) const;
  Target choose(const BlockBuffer& buffer, const Known& known);

  // Of a block's content without the zeros at its end: how long it is and was, and at how many
  // places below the lesser of the two it changed.
  struct Change {
    std::uint64_t old_end = 0;
    std::uint64_t new_end = 0;
    std::uint64_t differences = 0;
  };
  std::uint64_t end_of_old(const Known& known, const BlockBuffer& buffer,
                           const ExtentList& ranges) const;
  Change compare(const BlockBuffer& buffer, const Known& known) const;
  Target choose_auto(const BlockBuffer& buffer, const Known& known);
  void migrate();

  void write_zblk0(BlockBuffer& buffer, const Known& known);
  void write_zblk1(BlockBuffer& buffer, const Known& known);
  void write_new_chunks(BlockBuffer& buffer, const Known& known);
  bool update_chunks(BlockBuffer& buffer, const BlockObject& zblk, std::span<const Chunk> chunks);
  bool has_foreign_chunks(std::span<const Chunk> chunks) const;
  void rebuild_chunks(BlockBuffer& buffer, const Known& known);
  void set_chunks(BTreeEditor& table, const BlockBuffer& buffer, std::uint64_t upto);

  void put_in_table(std::uint64_t block, Oid zblk, KnownClass cls);
  void touch(const BlockObject& old);
  void store_payload(Oid oid, Tid base, KnownClass cls, ByteView payload);
  void store_zblk1(Oid oid, Tid base, Oid chunktab);
  void store_tree(const BTreeEditor& tree);

  Storage& storage_;
  const std::uint64_t blksize_;
  const BlockFormat format_;
  const Flavour flavour_;
  TransactionSink& sink_;
  ObjectCaches caches_;
  const Objects objects_;
  BTreeEditor blktab_;
  PayloadEnvelope full_chunk_;  // of the usual chunk

  // `auto` may turn the block before a new last one into a ZBlk0: it must have been the last one,
  // and a ZBlk1 changed in place by this very transaction. What was dirty of it is kept until it is
  // known whether a new last one comes; the rest is still in the database.
  struct Migratable {
    std::uint64_t block = 0;
    Known known;
    ExtentList dirty;
    Bytes bytes;  // what is dirty, one extent after the other
  };
  std::optional<Migratable> migratable_;
};

}  // namespace zbig
