#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The end never hangs: `zbig detach --force` within 10 s in every state of server, agent and
# programs, and the agent ends when it is told to. What was written is kept.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need_mapped

db=$work/Data.fs
zbig create "$db" /A --size 8M --block-size 256K > /dev/null
start_agent
id=force$$

# hold: a program maps the device and writes to it; it is there in the server. ask COMMAND: sets
# reply, "lost" after SIGBUS.
program=
hold() {
    attach_mapped "$id" "$work/file"
    rm -f "$work/in" "$work/out.fifo"
    mkfifo "$work/in" "$work/out.fifo"
    held_mapping "$work/file" < "$work/in" > "$work/out.fifo" 2> "$work/held.err" &
    program=$!
    exec 7> "$work/in" 8< "$work/out.fifo"
    ask write 100 "$1"
    sync -d "$work/file"
}
ask() {
    echo "$*" >&7
    read -r -t 60 reply <&8 || fail "$*: no reply: $(cat "$work/held.err")"
}
# ends_by_force STATE: within 10 s, the program is told, and its write is there at the next attach.
ends_by_force() {
    local begin=$SECONDS
    expect 0 zbig detach "$id" --force
    [ $((SECONDS - begin)) -le 10 ] || fail "$1: it took $((SECONDS - begin)) s"
    ask read 5000000 4  # not in memory
    same "$1: what the program gets" "$reply" lost
    wait "$program" 2> /dev/null || true
    attach_mapped "$id" "$work/file"
    same "$1: what was written" "$(tail -c +101 "$work/file" | head -c 5)" "kept$1"
    expect 0 zbig detach "$id" --discard
}

step "by force, with a server that is well, dead, and stuck"
hold kept1
ends_by_force 1
hold kept2
kill -9 "$(server_pid)"
ends_by_force 2
hold kept3
kill -STOP "$(server_pid)"
ends_by_force 3

step "by force, with an agent that has just been started: the server well, dead, and stuck"
hold kept4
kill_agent
start_agent
ends_by_force 4
hold kept5
kill_agent
kill -9 "$(server_pid)"
start_agent
ends_by_force 5
hold kept6
kill_agent
kill -STOP "$(server_pid)"
start_agent
ends_by_force 6

step "the agent ends when it is told to, while a commit waits for a server that is stuck"
hold kept7
ask write 8000 dirty
server=$(server_pid)
kill -STOP "$server"
zbig commit "$id" > "$work/commit" 2>&1 &
commit=$!
sleep 1
begin=$SECONDS
kill "$agent"
wait "$agent" || true
[ $((SECONDS - begin)) -le 10 ] || fail "it took $((SECONDS - begin)) s"
wait "$commit" || true
kill -CONT "$server"
start_agent
until_true 30 is_state "$id" dirty || fail "$(zbig status "$id")"
expect 0 zbig commit "$id"
zbig export "$db" /A --offset 8000 --length 5 | cmp - <(printf dirty) || fail "it is lost"
ask write 9000 again
same "the program goes on" "$reply" written
exec 7>&-
kill "$program"
wait "$program" 2> /dev/null || true
expect 0 zbig detach "$id" --force
stop_agent
