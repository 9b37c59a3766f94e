#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The race (main.cc) over a ZEO server: devices of two agents, and two programs in Python, on two
# volumes of one database.
#
# All write ZBlk0: where the format of a block differs, wendelin.core puts another object in its
# place and does not check the old one, so that it overwrites what came in between (not reported by
# ZODB as a conflict, and nothing that zbig could do about).
#
#   race_zeo_test.sh [ENVIRONMENT [SECONDS]]

# shellcheck source=tests/agent/zeo.sh
source "$(dirname "$0")/../agent/zeo.sh" "${1:-py3}"
db="$plain&wait_timeout=30"

for volume in A B; do
    zbig create "$db" "/$volume" --size 4M --block-size 256K > /dev/null
done

# The second agent is the one that tests/agent/lib.sh ends.
agent_number=0
sockets=()
actors=()
next_agent() {
    agent_number=$((agent_number + 1))
    state=$work/state$agent_number
    ZBIG_SOCKET=$work/run$agent_number/zbigd.sock
    sockets+=(--socket "$ZBIG_SOCKET")
    start_agent
}
# attach KIND OPTION...: one device of each volume, for a participant of that kind.
attached=0
attach() {
    local kind=$1 volume name devices=
    shift
    attached=$((attached + 1))
    for volume in A B; do
        name=zbt$$-$attached$volume
        expect 0 zbig attach "$db" "/$volume" --name "$name" --fuse "$work/$name" "$@"
        devices=${devices:+$devices,}$name
    done
    actors+=("--$kind" "$agent_number/$devices")
}

next_agent
attach writer --follow manual --format ZBlk0
attach following-writer --format ZBlk0
attach reader --read-only
# shellcheck disable=SC2034
first=$agent first_state=$state
# shellcheck disable=SC2016
at_end '(agent=$first state=$first_state; no_agent_is_left)'

next_agent
attach writer --follow manual --format ZBlk0
attach reader
attach snapshot-reader --follow manual --read-only

for _ in 1 2; do
    actors+=(--python-writer "$python -W ignore $here/python_writer.py $plain /A /B")
done
race --seconds "${2:-20}" "${sockets[@]}" "${actors[@]}" || fail "the race ended with $?"
expect 0 zbig check "$plain"
