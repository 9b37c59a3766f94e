#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The race notices a front end that does not drop pages: with deaf_fuse.py in place of zbig-fuse
# it must end with a broken promise.

# shellcheck disable=SC2154 source=tests/race/lib.sh
source "$(dirname "$0")/lib.sh"
need python3

export REAL_ZBIG_FUSE=$ZBIG_BIN/zbig-fuse
ZBIG_FUSE=$(realpath "$(dirname "$0")/deaf_fuse.py")
export ZBIG_FUSE
attach_all fuse
expect 1 race --seconds 60 "${actors[@]}"
holds "race" "$err" "a promise was broken"
step "$err"
