#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# kill -9 of the server, of the agent, and of both, at random moments, while a writer writes and
# flushes and commits go on: no flushed write is lost, none is torn, and in the end the database
# holds what the writer says. $SECONDS_TO_RUN for longer runs.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"

run_time=${SECONDS_TO_RUN:-15}
seed=${SEED:-$RANDOM}
RANDOM=$seed
step "seed $seed"
db=$work/Data.fs
zbig create "$db" /A --size 16M --block-size 256K
start_agent
zbig attach "$db" /A --socket-only --format "${FORMAT:-ZBlk1}" > /dev/null
uri=$(status_of A nbd)
crash_writer "$uri" "$run_time" "$seed" "$work/model" > "$work/writer" 2>&1 &
writer=$!
at_end 'kill $writer 2> /dev/null'

kills=0
commits=0
while kill -0 "$writer" 2> /dev/null; do
    # A commit in the background, so that what follows may hit it anywhere.
    zbig commit A > "$work/commit" 2>&1 &
    commit=$!
    sleep "0.$((RANDOM % 5))$((RANDOM % 10))"
    case $((RANDOM % 5)) in
        0) kill -9 "$(server_pid)" || true ;;
        1)
            kill_agent
            start_agent
            ;;
        2)
            kill -9 "$(server_pid)" || true
            kill_agent
            start_agent
            ;;
        *) kills=$((kills - 1)) ;;
    esac
    kills=$((kills + 1))
    wait "$commit" && commits=$((commits + 1))
done
wait "$writer" || fail "the writer: $(cat "$work/writer")"
step "$(cat "$work/writer"), $kills kills, $commits commits"

until_true 20 eval 'is_state A dirty || is_state A clean' || fail "state $(status_of A state)"
read_device A | cmp - "$work/model"
expect 0 zbig commit A
same "state" "$(status_of A state)" clean
zbig export "$db" /A | cmp - "$work/model"
expect 0 zbig check "$db"
expect 0 zbig detach A
stop_agent
