#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The race (tests/race) with devices of both front ends: programs on /dev/nbdX against programs on
# FUSE files.
#
#   race_test.sh BIN_DIR [SECONDS]

ZBIG_BIN=$(cd "$1" && pwd) exec bash "$(dirname "$0")/../race/race_test.sh" "${2-40}" nbd fuse
