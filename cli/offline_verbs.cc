// SPDX-License-Identifier: BSD-3-Clause

#include "cli/offline_verbs.h"

#include <vector>

namespace zbig {

std::span<const Verb> offline_verbs() {
  static const std::vector<Verb> verbs{create_verb(), ls_verb(),  info_verb(), export_verb(),
                                       import_verb(), log_verb(), diff_verb(), check_verb()};
  return verbs;
}

}  // namespace zbig
