#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A ZEO server that hangs, and one that is dead for longer than the grace time: devices that follow
# fail their reads, mapped pages included, and go on by themselves when it is back. One that comes
# back with an older database: they say so, and do not go on.

# shellcheck disable=SC2016 source=tests/agent/zeo.sh
source "$(dirname "$0")/zeo.sh" py3
db="$plain&wait_timeout=4"
name=zbt$$
by_python() {
    printf '%s' "$2" |
        "$python" -W ignore "$here/../peers/zpeer.py" write "$plain" /A "$1" > /dev/null
}
zbig create "$db" /A --size 1M --block-size 256K > /dev/null
by_python 1000 zero
agent_options=(--feed-grace 2)
start_agent
expect 0 zbig attach "$db" /A --name "$name" --fuse "$work/here"

reads() {
    [ "$(dd if="$work/here" bs=1 skip=1000 count="${#1}" status=none 2> "$work/err")" = "$1" ]
}
fails() {
    ! dd if="$work/here" of=/dev/null bs=4096 count=1 2> "$work/err" &&
        grep -q "Input/output error" "$work/err"
}
becomes_stale() {
    until_true 30 is_state "$name" stale || fail "$1: $(zbig status "$name")"
    same "feed" "$(status_of "$name" feed)" lost
    fails || fail "$1: it is read"
}
# Maps the file; the next lost_mapping wants it gone.
map() {
    coproc MAPPING { exec held_mapping "$work/here" 2> "$work/mapping.err"; }
    mapping=$MAPPING_PID
    mapped_in=${MAPPING[1]}
    exec {mapped_out}<&"${MAPPING[0]}"
    echo "read 1000 4" >&"$mapped_in"
    read -r -t 10 -u "$mapped_out" reply
    same "mapped" "$reply" "$1"
}
mapping_is_lost() {
    echo "read 1000 4" >&"$mapped_in"
    read -r -t 10 -u "$mapped_out" reply
    same "mapped bytes" "$reply" lost
    wait "$mapping" || true
}

step "the server hangs"
map zero
kill -STOP "$(zeo_pid)"
becomes_stale hangs
mapping_is_lost
kill -CONT "$(zeo_pid)"
by_python 1000 next
until_true 30 reads next || fail "it does not follow: $(zbig status "$name")"
until_true 5 is_state "$name" clean || fail "$(zbig status "$name")"
same "feed" "$(status_of "$name" feed)" following

step "the server dies"
map next
kill -9 "$(zeo_pid)"
becomes_stale dies
mapping_is_lost
zeo start
by_python 1000 last
until_true 30 reads last || fail "it does not follow: $(zbig status "$name")"
until_true 5 is_state "$name" clean || fail "$(zbig status "$name")"

step "the server comes back with an older database"
cp "$work/zeo/Data.fs" "$work/older.fs"
by_python 1000 gone
until_true 30 reads gone || fail "it does not follow: $(zbig status "$name")"
map gone
zeo stop
cp "$work/older.fs" "$work/zeo/Data.fs"
rm -f "$work/zeo/Data.fs.index"
zeo start
becomes_stale "an older database"
mapping_is_lost
holds "status" "$(zbig status "$name")" "another history"
by_python 1000 more # the older one goes on in its own way
sleep 1
fails || fail "it is read again"
expect 7 zbig refresh "$name"
holds "refresh" "$err" "another history"
expect 0 zbig detach "$name" --discard
stop_agent
