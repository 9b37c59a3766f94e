// SPDX-License-Identifier: BSD-3-Clause
#include "nbdkit-plugin/export.h"

namespace zbig {

std::string describe(const Volume& volume) {
  std::string text;
  if (volume.array) {
    text = "ZBigArray " + volume.array->dtype + " (";
    for (std::size_t i = 0; i < volume.array->shape.size(); ++i) {
      text += (i > 0 ? ", " : "") + std::to_string(volume.array->shape[i]);
    }
    text += volume.array->order == 'F' ? ") in Fortran order" : ")";
  } else {
    text = "ZBigFile";
  }
  return text + ", blocks of " + std::to_string(volume.blksize) + " bytes";
}

std::string ViewExport::description() const {
  return describe(view_->volume()) + ", at " + view_->at().hex();
}

}  // namespace zbig
