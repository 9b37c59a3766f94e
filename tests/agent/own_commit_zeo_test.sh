#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# An agent that dies when it has told the ZEO server to finish a transaction and has no answer, so
# that it knows no tid. What became of the transaction is found out by its successor: if it was
# committed, the device's next commit is no conflict with it, also where it was written again in
# between; if it was not, everything is still there to be committed; and what another client
# committed is a conflict, even with the same bytes.
#
# To have the commit at that moment, the file that it writes to when its transaction is voted is a
# pipe here, which it waits at until somebody reads; before that, the server is frozen.

# shellcheck disable=SC2016 source=tests/agent/zeo.sh
source "$(dirname "$0")/zeo.sh" "${1:-py3}"
need qemu-io openssl
db="$plain&wait_timeout=15"
zbig create "$db" /A --size 1M --block-size 64K > /dev/null
start_agent
zbig attach "$db" /A --socket-only > /dev/null
voted=$state/devices/A/voted
for seed in first second third; do pattern 65536 "$seed" > "$work/$seed"; done
head -c 1048576 /dev/zero > "$work/model"

# write_block BLOCK SEED
write_block() {
    write_at A $(($1 * 65536)) "$work/$2"
    dd if="$work/$2" of="$work/model" bs=65536 seek="$1" conv=notrunc status=none
}
# by_python BLOCK SEED
by_python() {
    "$python" -W ignore "$here/../peers/zpeer.py" write "$plain" /A $(($1 * 65536)) \
        < "$work/$2" > "$work/python_tid"
}
# commit_unanswered: the commit is voted, then `tpc_finish` lies unread before a frozen server, and
# the agent is gone. Whoever calls it says what becomes of the server.
: > "$work/voted"
commit_unanswered() {
    local line size
    size=$(stat -c %s "$work/zeo/Data.fs")
    rm -f "$voted"
    mkfifo "$voted"
    zbig commit A -m mine > "$work/commit" 2>&1 &
    local commit=$!
    cat "$work/voted" > "$voted" # it reads what was voted before, then comes to write
    until_true 60 eval '[ "$(stat -c %s "$work/zeo/Data.fs")" -gt '"$size"' ]' || fail "no vote"
    sleep 1 # the answer to it arrives
    kill -STOP "$(zeo_pid)"
    line=$(timeout 60 tail -n 1 "$voted") || fail "no mark: $(cat "$work/commit")"
    sleep 1 # it goes on to tpc_finish
    kill_agent
    wait "$commit" && fail "it was answered"
    echo "$line" >> "$work/voted"
    rm "$voted"
    cp "$work/voted" "$voted"
}
commits() { zbig log "$db" /A | grep -c mine || true; }
is_committed() {
    expect 0 zbig commit A
    same "state" "$(status_of A state)" clean
    zbig export "$db" /A | cmp - "$work/model"
    : > "$work/voted"
}

step "it was committed: written again, it is committed again"
write_block 0 first
commit_unanswered
kill -CONT "$(zeo_pid)"
start_agent
until_true 20 eval '[ "$(commits)" = 1 ]' || fail "tpc_finish was not taken"
until_true 30 is_state A dirty || fail "$(zbig status A)"
write_block 0 second
write_block 1 second
is_committed

step "twice in a row, and with another client's commit in another block"
write_block 0 third
commit_unanswered
kill -CONT "$(zeo_pid)"
start_agent
until_true 30 is_state A dirty || fail "$(zbig status A)"
write_block 1 first
commit_unanswered
kill -CONT "$(zeo_pid)"
by_python 9 first
dd if="$work/first" of="$work/model" bs=65536 seek=9 conv=notrunc status=none
start_agent
until_true 30 is_state A dirty || fail "$(zbig status A)"
write_block 0 first
write_block 1 second
is_committed

step "it was not committed: nothing is lost"
before=$(commits)
write_block 2 first
commit_unanswered
kill -9 "$(zeo_pid)"
until_true 10 eval '! kill -0 "$(zeo_pid)" 2> /dev/null'
zeo start
start_agent
until_true 30 is_state A dirty || fail "$(zbig status A)"
same "transactions" "$(commits)" "$before"
write_block 2 second
is_committed

step "it was not committed, and another client has committed the same bytes: a conflict"
write_at A 131072 "$work/third"
commit_unanswered
kill -9 "$(zeo_pid)"
until_true 10 eval '! kill -0 "$(zeo_pid)" 2> /dev/null'
zeo start
by_python 2 first
by_python 2 third
start_agent
until_true 30 is_state A dirty || fail "$(zbig status A)"
write_at A 131072 "$work/second"
expect 3 zbig commit A
same "Python's" "$("$python" -W ignore "$here/../peers/zpeer.py" read "$plain" /A \
    --offset 131072 --length 65536 | sha256sum)" "$(sha256sum < "$work/third")"
expect 0 zbig abort A
: > "$work/voted"

step "it was committed, and then another client changed the block: a conflict"
write_at A 196608 "$work/first"
commit_unanswered
kill -CONT "$(zeo_pid)"
by_python 3 second
start_agent
until_true 30 is_state A dirty || fail "$(zbig status A)"
write_at A 196608 "$work/third"
expect 3 zbig commit A
holds "the error" "$err" "$(cat "$work/python_tid")"
expect 0 zbig abort A

expect 0 zbig check "$db"
expect 0 zbig detach A
stop_agent
