#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Devices of a database that a real ZEO server keeps: a Python program and a program with a mapping
# commit in turn, each sees the other's, conflicts are reported; and the server dies, hangs, and
# comes back with an older database.

# shellcheck disable=SC2016 source=tests/agent/zeo.sh
source "$(dirname "$0")/zeo.sh" "${1:-py3}"
db="$plain&wait_timeout=15"
name=zbt$$
peer() { "$python" -W ignore "$here/../peers/zpeer.py" "$@"; }
# by_python OFFSET TEXT: commits it through ZBigFile; prints the tid.
by_python() { printf '%s' "$2" | peer write "$plain" /A "$1"; }

zbig create "$db" /A --size 8M --block-size 256K > /dev/null
yes 'what was there before' | tr '\n' '.' | head -c 8388608 > "$work/text" || true
zbig import "$db" /A "$work/text" > /dev/null
start_agent
expect 0 zbig attach "$db" /A --name "$name" --fuse "$work/here"

coproc MAPPING { exec held_mapping "$work/here" 2> "$work/mapping.err"; }
# ask COMMAND: sets reply.
ask() {
    echo "$*" >&"${MAPPING[1]}"
    read -r -t 60 reply <&"${MAPPING[0]}" || fail "$*: no reply: $(cat "$work/mapping.err")"
}

step "what Python commits appears in the mapping"
for round in 1 2 3; do
    offset=$((round * 1000000))
    ask read "$offset" 7
    by_python "$offset" "python$round" > "$work/tid"
    ask await "$offset" "python$round" 10
    [ "$reply" != never ] || fail "round $round: the mapping is stale: $(zbig status "$name")"
    step "fresh $reply ms after the Python program ended"
done
until_true 5 eval '[ "$(status_of "$name" tid)" = "$(cat "$work/tid")" ]' || fail "the view"

step "what the mapping commits is seen by Python"
ask write 100 mine
expect 0 zbig commit "$name" -m "from a mapping"
same "read by Python" "$(peer read "$plain" /A --offset 100 --length 4)" mine
same "said in the log" "$(zbig log "$db" /A --json -n 1 | field description)" "from a mapping"

step "the same block by both is a conflict, and nothing is overwritten"
ask write 200 second
by_python 220 first > /dev/null
expect 3 zbig commit "$name"
same "state" "$(status_of "$name" state)" dirty
same "Python's" "$(peer read "$plain" /A --offset 200 --length 25)" \
    "$(tail -c +201 "$work/text" | head -c 20)first"
expect 0 zbig abort "$name"
ask read 220 5
same "after the abort" "$reply" first

step "other blocks of the same table are merged"
ask write 300 other
by_python 5000000 python > /dev/null
expect 0 zbig commit "$name"
ask await 5000000 python 10
[ "$reply" != never ] || fail "the other block does not come with the commit"
same "both" "$(peer read "$plain" /A --offset 300 --length 5)" other

step "a server that dies and comes back is connected to again"
kill -9 "$(zeo_pid)"
until_true 10 eval '! kill -0 "$(zeo_pid)" 2> /dev/null'
{ sleep 1; zeo start; } &
starting=$!
ask read 7300001 3  # waits for the server
same "bytes that were not read before" "$reply" "$(tail -c +7300002 "$work/text" | head -c 3)"
wait "$starting"
ask write 400 later
expect 0 zbig commit "$name"
by_python 6000000 again > /dev/null
ask await 6000000 again 20
[ "$reply" != never ] || fail "the feed did not come back: $(zbig status "$name")"

step "an agent that starts while the server is away brings the device back later"
kill_agent
zeo stop
kill -9 "$(server_pid)"
start_agent
[ "$(status_of "$name" state)" != clean ] || fail "status: $(zbig status "$name")"
zeo start
until_true 60 is_state "$name" clean || fail "status: $(zbig status "$name")"
by_python 6500000 returned > /dev/null
ask await 6500000 returned 20
[ "$reply" != never ] || fail "the feed did not come back: $(zbig status "$name")"

step "a frozen server is waited for, as long as was said"
ask write 500 frozen
kill -STOP "$(zeo_pid)"
started=$SECONDS
expect 6 zbig commit "$name"
[ $((SECONDS - started)) -lt 60 ] || fail "it took $((SECONDS - started)) s"
same "state" "$(status_of "$name" state)" dirty
kill -CONT "$(zeo_pid)"
until_true 30 eval 'zbig commit "$name" > /dev/null' || fail "no commit after the server went on"
same "read by Python" "$(peer read "$plain" /A --offset 500 --length 6)" frozen

step "a server with an older database is refused"
cp "$work/zeo/Data.fs" "$work/older.fs"
ask write 600 newest
expect 0 zbig commit "$name"
zeo stop
cp "$work/older.fs" "$work/zeo/Data.fs"
rm -f "$work/zeo/Data.fs.index"
zeo start
ask write 600 wrong
expect 7 zbig commit "$name"
until_true 20 eval '[ "$(status_of "$name" feed)" = lost ]' || fail "status: $(zbig status "$name")"

expect 0 zbig detach "$name" --discard
stop_agent
