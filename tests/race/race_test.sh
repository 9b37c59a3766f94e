#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The race (main.cc) on devices of two volumes of one database.
#
#   race_test.sh [SECONDS [FRONT_END...]]
#
# FRONT_END: fuse or nbd, for each set of devices in turn (so `fuse nbd` mixes them).

# shellcheck source=tests/race/lib.sh
source "$(dirname "$0")/lib.sh"

seconds=${1-20}
shift || true
attach_all "$@"
race --seconds "$seconds" "${actors[@]}" || fail "the race ended with $?"
expect 0 zbig check "$db"
stop_agent
