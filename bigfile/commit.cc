// SPDX-License-Identifier: BSD-3-Clause
#include "bigfile/commit.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>
#include <set>
#include <unordered_map>

#include "bigfile/block_merge.h"
#include "bigfile/block_writer.h"
#include "bigfile/changes.h"
#include "bigfile/read_ahead.h"
#include "bigfile/transaction_sink.h"
#include "bigfile/volume_object.h"
#include "zodb/record.h"

// A commit is tried against the head of the database. If another client commits to nodes of a block
// table meanwhile (it appends other blocks, say), the storage refuses ours, and everything is done
// again against the new head: the source still has the data, and what was encoded is forgotten. If
// the other client changed a block that is dirty here, the next try finds it out by comparing base
// and head, and the commit fails with the names of the blocks.

namespace zbig {
namespace {

// As many as ZEO's client makes. Each failure is somebody else's success.
constexpr int kMaxTries = 9;
constexpr std::uint64_t kMaxOffset = std::numeric_limits<std::int64_t>::max();

class Progress {
 public:
  Progress(const ProgressFn& report, std::uint64_t total) : report_(report), total_(total) {}
  void add(std::uint64_t bytes) {
    done_ += bytes;
    const auto now = std::chrono::steady_clock::now();
    if (!report_ || (now - last_ < std::chrono::milliseconds(100) && done_ < total_)) return;
    last_ = now;
    report_(done_, total_);
  }

 private:
  const ProgressFn& report_;
  const std::uint64_t total_;
  std::uint64_t done_ = 0;
  std::chrono::steady_clock::time_point last_;
};

// Which blocks others changed since the base of a commit.
class ForeignChanges {
 public:
  ForeignChanges(const Storage& storage, const VolumeCommit& work, const Volume& at_head,
                 Tid head) {
    if (work.base == head) return;
    const auto at_base = volume_at(storage, work.volume, work.base);
    if (!at_base || at_base->zfile != at_head.zfile || at_base->blktab != at_head.blktab ||
        at_base->blksize != at_head.blksize) {
      replaced_ = at_head.serial;
      return;
    }
    for (const BlockChange& change : changed_blocks(storage, at_head, work.base, head)) {
      if (!work.own.contains(change.tid)) blocks_[change.block] = change.tid;
    }
    if (work.merge && !blocks_.empty() && BlockMerge::possible(at_head)) {
      merge_.emplace(storage, *at_base, work.base, at_head, head);
    }
  }

  // The transaction that changed the block, if one did.
  std::optional<Tid> find(std::uint64_t block) const {
    if (replaced_) return replaced_;
    const auto found = blocks_.find(block);
    return found == blocks_.end() ? std::nullopt : std::optional(found->second);
  }
  // Null if there is nothing to merge, or it must not be.
  const BlockMerge* merge() const { return merge_ ? &*merge_ : nullptr; }

 private:
  std::optional<Tid> replaced_;  // the file itself
  std::optional<BlockMerge> merge_;
  std::unordered_map<std::uint64_t, Tid> blocks_;
};

// One try at one volume.
class VolumeRun {
 public:
  VolumeRun(Storage& storage, const VolumeCommit& work, Tid head, TransactionSink& sink,
            Progress& progress, std::vector<BlockConflict>& conflicts)
      : work_(work),
        volume_(volume_at_head(storage, work, head)),
        foreign_(storage, work, volume_, head),
        writer_(storage, volume_, head, work.format, flavour_of(storage, volume_, head), sink),
        progress_(progress),
        conflicts_(conflicts) {
    // Buffers are a few blocks. Nobody has made such a file; whoever does can still read it.
    if (volume_.blksize > std::numeric_limits<std::int32_t>::max()) {
      throw Unsupported(volume_.path + " has blocks of " + std::to_string(volume_.blksize) +
                        " bytes, which zbig reads and does not write");
    }
  }

  void run() {
    ReadAhead source(*work_.source, volume_.blksize);
    while (auto run = source.next()) {
      write_run(*run);
      source.recycle(std::move(*run));
    }
    if (conflicts_.empty()) writer_.finish();
  }

  std::uint64_t blocks_changed() const { return blocks_changed_; }
  std::uint64_t blocks_merged() const { return blocks_merged_; }

 private:
  static Volume volume_at_head(const Storage& storage, const VolumeCommit& work, Tid head) {
    auto volume = volume_at(storage, work.volume, head);
    if (!volume) {
      throw NotFound("volume " + work.volume.path + " is gone from " + storage.url() + " as of " +
                     head.hex());
    }
    return std::move(*volume);
  }

  static Flavour flavour_of(const Storage& storage, const Volume& volume, Tid head) {
    const auto zfile = load_object(storage, volume.zfile, head);
    invariant(zfile.has_value(), "a volume has a file");
    return detect_flavour(zfile->record.data());
  }

  void write_run(const DirtyRun& run) {
    const std::uint64_t blksize = volume_.blksize;
    std::vector<BlockBuffer> buffers;
    std::vector<std::uint64_t> blocks;
    for (const Extent& extent : run.dirty) {
      for (std::uint64_t at = extent.offset; at < extent.end();) {
        const std::uint64_t block = at / blksize;
        const std::uint64_t begin = block * blksize;
        const std::uint64_t end = std::min(extent.end(), begin + blksize);
        if (blocks.empty() || blocks.back() != block) {
          blocks.push_back(block);
          std::byte* bytes = run.bytes.get() + (block - run.first) * blksize;
          buffers.push_back({block, {bytes, blksize}, {}});
        }
        append_extent(buffers.back().dirty, at - begin, end - at);
        at = end;
      }
    }
    const auto known = writer_.known(blocks);
    for (std::size_t i = 0; i < buffers.size(); ++i) {
      const std::uint64_t dirty = total_length(buffers[i].dirty);
      try {
        write_block(buffers[i], known[i]);
      } catch (const Conflict&) {
        throw;
      } catch (const Error&) {
        rethrow_with_context(volume_.path + ", block " + std::to_string(buffers[i].block));
      }
      progress_.add(dirty);
    }
  }

  void write_block(BlockBuffer& buffer, const BlockWriter::Known& known) {
    const auto changed_by = foreign_.find(buffer.block);
    // Once the transaction is lost only the conflicts matter.
    if (!conflicts_.empty() && !changed_by) return;
    if (writer_.is_unchanged(buffer, known)) {
      writer_.keep(known);
    } else if (!changed_by) {
      write_changed(buffer, known);
    } else if (foreign_.merge() != nullptr) {
      merge_block(buffer, known, *changed_by);
    } else {
      add_conflict(buffer.block, *changed_by, {});
    }
  }

  void merge_block(BlockBuffer& buffer, const BlockWriter::Known& known, Tid changed_by) {
    BlockMerge::Pages pages = foreign_.merge()->merge(buffer);
    if (!pages.both.empty()) return add_conflict(buffer.block, changed_by, std::move(pages.both));
    if (!conflicts_.empty()) return;
    ++blocks_merged_;
    if (!pages.own.empty()) {
      buffer.dirty = std::move(pages.own);
      write_changed(buffer, known);
    } else if (known.zblk) {
      writer_.keep(known);
    }
  }

  void write_changed(BlockBuffer& buffer, const BlockWriter::Known& known) {
    writer_.write(buffer, known);
    ++blocks_changed_;
  }

  void add_conflict(std::uint64_t block, Tid changed_by, ExtentList pages) {
    conflicts_.push_back({.volume = work_.volume.path,
                          .block = block,
                          .offset = block * volume_.blksize,
                          .base_tid = work_.base,
                          .tid = changed_by,
                          .user = {},
                          .description = {},
                          .pages = std::move(pages)});
  }

  const VolumeCommit& work_;
  const Volume volume_;
  const ForeignChanges foreign_;
  BlockWriter writer_;
  Progress& progress_;
  std::vector<BlockConflict>& conflicts_;
  std::uint64_t blocks_changed_ = 0;
  std::uint64_t blocks_merged_ = 0;
};

[[noreturn]] void throw_conflicts(const Storage& storage, std::vector<BlockConflict> conflicts) {
  std::map<Tid, TransactionInfo> winners;
  for (BlockConflict& conflict : conflicts) {
    if (!winners.contains(conflict.tid)) {
      const auto cursor = storage.transactions(conflict.tid, conflict.tid, /*backwards=*/false);
      if (auto info = cursor->next()) winners[conflict.tid] = std::move(*info);
    }
    const TransactionInfo& winner = winners[conflict.tid];
    conflict.user = winner.user;
    conflict.description = winner.description;
  }
  const BlockConflict& first = conflicts.front();
  std::string sentence = "block " + std::to_string(first.block) + " of " + first.volume +
                         " was changed by transaction " + first.tid.hex() + " after " +
                         first.base_tid.hex();
  if (conflicts.size() > 1) {
    sentence += ", and " + std::to_string(conflicts.size() - 1) + " more blocks by others";
  }
  throw CommitConflict(sentence, std::move(conflicts));
}

CommitResult try_commit(Storage& storage, std::span<const VolumeCommit> volumes, Tid head,
                        const TransactionMeta& meta, Progress& progress, const VotedFn& voted) {
  TransactionSink sink(storage, meta);
  std::vector<BlockConflict> conflicts;
  CommitResult result;
  for (const VolumeCommit& work : volumes) {
    VolumeRun run(storage, work, head, sink, progress, conflicts);
    run.run();
    result.blocks_changed += run.blocks_changed();
    result.blocks_merged += run.blocks_merged();
  }
  if (!conflicts.empty()) throw_conflicts(storage, std::move(conflicts));
  result.objects_stored = sink.objects();
  result.bytes_stored = sink.bytes();
  result.tid = sink.finish([&](const std::string& mark) {
    if (voted) voted(mark, result.blocks_merged > 0);
  });
  return result;
}

void check_request(std::span<const VolumeCommit> volumes, Tid head) {
  std::set<Oid> files;
  for (const VolumeCommit& work : volumes) {
    const ExtentList& extents = work.source->extents();
    if (!extents.empty() && extents.back().end() > kMaxOffset) {
      throw Invalid(work.volume.path + " is dirty past the end of any volume");
    }
    if (!files.insert(work.volume.zfile).second) {
      throw Invalid(work.volume.path + " and another volume of this commit are one file");
    }
    if (work.base > head) {
      throw Invalid(work.volume.path + " is based on " + work.base.hex() +
                    ", which is not in the database yet: its head is " + head.hex());
    }
  }
}

}  // namespace

CommitResult commit(Storage& storage, std::span<const VolumeCommit> volumes,
                    const TransactionMeta& meta, const ProgressFn& progress, const VotedFn& voted) {
  std::uint64_t total = 0;
  for (const VolumeCommit& work : volumes) total += total_length(work.source->extents());
  Tid head = storage.sync();
  check_request(volumes, head);
  for (int tries = 1;; ++tries) {
    Progress reported(progress, total);
    try {
      return try_commit(storage, volumes, head, meta, reported, voted);
    } catch (const Conflict&) {
      const Tid newer = storage.sync();
      if (tries == kMaxTries || newer == head) throw;
      head = newer;
    }
  }
}

}  // namespace zbig
