#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A Python program with a ZBigArray over ZEO and a program with a mapping of a device, both of which
# stay, and change the same array in turn and at once. Among the changes those that are not of a
# block's object alone, and that wendelin.core's own mappings miss: a block made in a hole, a block
# that becomes another object, a bucket of the block table that splits, and a block whose object
# was dropped from the cache since it was read.
#
#   zeo_topology_test.sh ENVIRONMENT

# shellcheck source=tests/agent/zeo.sh
source "$(dirname "$0")/zeo.sh" "${1:-py3}"
need_arrays
name=zbt$$
mib=1048576
block=$((2 * mib))
# A cache that keeps nothing: what is loaded is dropped before it is asked for again.
db="$plain&wait_timeout=15&cache_size=16KB"

zbig create "$db" /A --size 512M > /dev/null
start_agent
# Each block that is committed here and was Python's becomes another object.
expect 0 zbig attach "$db" /A --name "$name" --fuse "$work/here" --format ZBlk1
start_talk python "$python" -W ignore "$here/../support/array_peer.py" "$plain" /A
hear python
start_talk mapping held_mapping "$work/here"

# at BLOCK: its first byte.
at() { echo $(($1 * block)); }
# python_did TEXT BLOCK...: what Python has committed comes into the mapping.
python_did() {
    local number
    for number in "${@:2}"; do
        ask mapping await "$(at "$number")" "$1" 10
        [ "$reply" != never ] || fail "block $number is stale: $(zbig status "$name")"
    done
}
# mapping_does TEXT BLOCK...: commits, and a Python program sees it. Whether the one that stays
# does is told only: its cache is wendelin.core's.
mapping_does() {
    local number
    for number in "${@:2}"; do ask mapping write "$(at "$number")" "$1"; done
    expect 0 zbig commit "$name"
    for number in "${@:2}"; do
        ask python fresh "$(at "$number")" "$1" 10
        [ "$reply" != never ] || fail "Python does not read block $number as it was committed"
    done
    ask python await "$(at "$2")" "$1" 0.2
    [ "$reply" != never ] || step "(wendelin.core's mapping stays stale)"
}
seen_before() { # BLOCK...
    local number
    for number; do
        ask mapping read "$(at "$number")" 8
        ask python read "$(at "$number")" 8
    done
}
# drop_caches: the kernel's of the device, as far as it lets go of mapped pages, and Python's.
drop_caches() {
    dd if="$work/here" iflag=nocache count=0 status=none
    ask python forget
}

step "an object that stays, both ways"
ask python fill 0 6 first
seen_before 0 1
ask python change "$(at 0)" again1
ask python commit
python_did again1 0
mapping_does again2 0
ask mapping read "$(at 1)" 5
same "the block beside" "$reply" first
ask python change "$(at 0)" again3 # ZBlk1 now, and a ZBlk0 again
ask python commit
python_did again3 0

step "a block made in a hole"
seen_before 20 21
ask python fill 20 1 fromhole
python_did fromhole 20
mapping_does madehere 21

step "a block that becomes another object, and is written again then"
seen_before 2 3
ask python replace 2 replaced
python_did replaced 2
ask python change "$(at 2)" rewriten
ask python commit
python_did rewriten 2
mapping_does otherobj 3
mapping_does samemore 3

step "buckets that split"
seen_before 5 30 95
ask python fill 22 70 splitted
python_did splitted 22 30 59 60 61 91
seen_before 5 95 150 200
printf -v many '%s ' {95..170}
# shellcheck disable=SC2086
mapping_does splithere $many
ask mapping read "$(at 5)" 5
same "a block that moved to another bucket" "$reply" first
ask python change "$(at 5)" moved5
ask python change "$(at 95)" moved95
ask python commit
python_did moved5 5
python_did moved95 95

step "objects dropped from caches since they were read"
seen_before 4 40
drop_caches
ask python fill 4 1 dropped
python_did dropped 4
seen_before 41 4
drop_caches
mapping_does dropped2 41

step "what both change is a conflict of whoever comes last"
seen_before 0
ask python change "$(at 0)" python_wins
ask mapping write "$(at 0)" mapping_was
ask python commit
[ "$reply" != conflict ] || fail "Python was first"
expect 3 zbig commit "$name"
ask python fresh "$(at 0)" python_wins 10
[ "$reply" != never ] || fail "Python's commit was overwritten"
expect 0 zbig abort "$name"
python_did python_wins 0
ask python read 0 4
ask python change "$(at 0)" python_lose
ask mapping write "$(at 0)" mapping_wins
expect 0 zbig commit "$name"
ask python commit
same "Python's later commit" "$reply" conflict
ask python fresh "$(at 0)" mapping_wins 10
[ "$reply" != never ] || fail "the mapping's commit was overwritten"

step "at once, in other blocks, neighbours in one bucket"
rounds=20
ask python await "$(at 0)" mapping_wins 10 || true
ask python fill 6 1 start
python_did start 6
echo "series $(at 6) $rounds" >&"${talk_in[python]}"
last=0
for ((round = 1; round <= rounds; round++)); do
    ask mapping write "$(at 7)" "$(printf '%04d' "$round")"
    expect 0 zbig commit "$name"
    ask mapping read "$(at 6)" 4
    [ "$reply" != star ] || reply=0
    [ $((10#$reply)) -ge "$last" ] || fail "Python's block went from $last to $reply"
    last=$((10#$reply))
done
hear python
same "Python's conflicts" "$reply" 0
ask mapping await "$(at 6)" "$(printf '%04d' "$rounds")" 10
[ "$reply" != never ] || fail "Python's last commit is missing"
ask python fresh "$(at 7)" "$(printf '%04d' "$rounds")" 10
[ "$reply" != never ] || fail "the mapping's last commit is missing"

expect 0 zbig check "$plain"
end_talk mapping
end_talk python
until_true 10 zbig detach "$name" 2> /dev/null || fail "detach: $(zbig status "$name")"
stop_agent
