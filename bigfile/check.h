// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_set>

#include "bigfile/volume.h"

// Check: looks at everything that can be reached, and goes on after a defect (`zbig check`).
//
// Readers stop at the first thing that is wrong on their way. A person with a damaged database
// wants to know all that is, so here every object is looked at by itself, whatever the state of
// those that lead to it, as long as its oid is known.

namespace zbig {

struct CheckCounts {
  std::uint64_t transactions = 0;
  std::uint64_t records = 0;  // revisions, old ones too
  std::uint64_t objects = 0;  // that can be reached from the root at the head
  std::uint64_t blocks = 0;
  std::uint64_t defects = 0;
};

// Where each defect goes: a sentence with its place.
using DefectFn = std::function<void(const std::string& sentence)>;
// Called often, with the number of things looked at; may throw to stop.
using CheckProgress = std::function<void(std::uint64_t done)>;

class Checker {
 public:
  Checker(std::shared_ptr<const Storage> storage, DefectFn on_defect, CheckProgress progress)
      : storage_(std::move(storage)),
        on_defect_(std::move(on_defect)),
        progress_(std::move(progress)) {}

  // What only the storage itself sees.
  void check_storage();
  // Every revision of every transaction can be loaded and parsed, and the newest ones are those
  // that loads at the head find. 16 bytes of memory a revision.
  void check_history();
  // Every object that the root leads to at the head exists, is a pickle, and is what its class
  // says.
  void check_objects();
  // The block table of one volume is a sound BTree, and every block can be read.
  void check_volume(const Volume& volume, Tid at);

  const CheckCounts& counts() const { return counts_; }
  // Counts a defect that somebody else found.
  void defect(const std::string& sentence);

 private:
  template <class Action>
  bool guarded(const std::string& context, const Action& action);
  void check_revision(Oid oid, Tid tid);
  std::vector<Oid> check_object(Oid oid, Tid at);
  void check_tree(const Volume& volume, Tid at, std::vector<std::int64_t>& blocks);
  void step();

  std::shared_ptr<const Storage> storage_;
  DefectFn on_defect_;
  CheckProgress progress_;
  CheckCounts counts_;
  std::uint64_t steps_ = 0;
  // Whose newest revision is a defect already: it is not reported again for being reached.
  std::unordered_set<Oid> defective_;
};

}  // namespace zbig
