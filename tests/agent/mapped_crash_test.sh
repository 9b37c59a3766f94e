#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# kill -9 of the server, of the agent, and of both, at random moments, under a program that writes
# to one mapping and checks it, while commits go on and another device commits too: the program
# notices nothing, sees others' commits in order, and in the end the database holds what it says.
# $SECONDS_TO_RUN for longer runs.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need_mapped

run_time=${SECONDS_TO_RUN:-15}
seed=${SEED:-$RANDOM}
RANDOM=$seed
step "seed $seed"
db=$work/Data.fs
name=zbt$$
size=4194304
zbig create "$db" /A --size "$size" --block-size 256K
start_agent
attach_mapped "$name" "$work/here" --format "${FORMAT:-ZBlk1}"
zbig attach "$db" /A --name "$name-2" --socket-only --format ZBlk0 > /dev/null
other=$(status_of "$name-2" nbd)
mapped_writer "$work/here" "$run_time" "$seed" "$work/model" > "$work/writer" 2>&1 &
writer=$!
at_end 'kill $writer 2> /dev/null'

count=0    # that the other device may have committed
counted=0  # that it has committed
little_endian() {
    local i value=$1
    for ((i = 0; i < 8; i++)); do
        # shellcheck disable=SC2059
        printf "\\x$(printf %02x $((value & 255)))"
        value=$((value >> 8))
    done
}
kills=0
commits=0
while kill -0 "$writer" 2> /dev/null; do
    # (crash_test.sh kills in the middle of commits.)
    zbig commit "$name" > "$work/commit" 2>&1 && commits=$((commits + 1))
    count=$((count + 1))
    little_endian "$count" > "$work/count"
    if qemu-io -f raw -c "write -s $work/count $((size - 8)) 8" -c flush "$other" &&
        zbig commit "$name-2"; then
        counted=$count
    fi > /dev/null 2>&1
    sleep "0.$((RANDOM % 3))$((RANDOM % 10))"
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
done
wait "$writer" || fail "the writer: $(cat "$work/writer")"
step "$(cat "$work/writer"), $kills kills, $commits commits, the other counted to $counted"

until_true 20 eval 'is_state $name dirty || is_state $name clean' ||
    fail "state $(status_of "$name" state)"
head -c $((size / 2)) "$work/here" | cmp - "$work/model"
expect 0 zbig commit "$name"
same "state" "$(status_of "$name" state)" clean
zbig export "$db" /A --length $((size / 2)) | cmp - "$work/model"
tail -c 8 "$work/here" | cmp - <(zbig export "$db" /A --offset $((size - 8)))
expect 0 zbig check "$db"
expect 0 zbig detach "$name"
expect 0 zbig detach "$name-2" --discard
stop_agent
