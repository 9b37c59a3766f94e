#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# `zbig commit --freeze cgroup=PATH`: what is committed was in memory at one instant, programs
# always go on again, and nothing that the commit waits for is ever stopped.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need_mapped
need od

# A cgroup of our own, in the hierarchy that is mounted, or can be.
top=$(sed -nE 's/.* [^ ]+ ([^ ]+) [^-]* - cgroup2 .*/\1/p' /proc/self/mountinfo | head -n 1)
if [ -z "$top" ]; then
    top=$work/cgroups
    mkdir "$top"
    mount -t cgroup2 none "$top" 2> /dev/null || skip "no cgroup2 is mounted, and none can be"
    at_end 'umount "$top"'
fi
group=$top/zbt$$
mkdir "$group" 2> /dev/null || skip "no cgroup can be made in $top by this user"
at_end 'rmdir "$group"'
at_end 'echo 0 > "$group/cgroup.freeze"
    for pid in $(cat "$group/cgroup.procs"); do kill -9 "$pid"; done
    until_true 10 is_empty'
[ -e "$group/cgroup.freeze" ] || skip "the kernel's cgroups cannot be frozen"
is_empty() { grep -q 'populated 0' "$group/cgroup.events"; }
frozen_is() {
    grep -q "frozen $1" "$group/cgroup.events" && [ "$(< "$group/cgroup.freeze")" = "$1" ]
}
# in_group COMMAND...: in the background; leaves its pid in $!.
in_group() {
    (
        echo "$BASHPID" > "$group/cgroup.procs"
        exec "$@"
    ) &
}

db=$work/Data.fs
name=zbt$$
size=$((64 << 20))
[ "$front_end" = fuse ] || size=$((8 << 20))  # by emulation
zbig create "$db" /A --size "$size" --block-size 256K > /dev/null
start_agent
attach_mapped "$name" "$work/file"
word() { zbig export "$db" /A --offset "$1" --length 8 | od -An -tu8 | tr -d ' '; }
committed() {
    first=$(word 0)
    second=$(word $((size - 4096)))
}
of_one_instant() { [ "$first" = "$second" ] || [ "$first" = $((second + 1)) ]; }

step "what cannot be frozen"
# refused STATUS PART FREEZE
refused() {
    expect "$1" zbig commit "$name" --freeze "$3"
    holds "--freeze $3" "$err" "$2"
}
refused 2 "none, fs or cgroup=PATH" all
refused 2 "none, fs or cgroup=PATH" cgroup=
refused 2 "none, fs or cgroup=PATH" cgroup=group
refused 4 "/nothing" "cgroup=$group/nothing"
refused 2 "no cgroup of version 2" "cgroup=$work"
refused 2 "no cgroup of version 2" "cgroup=$top"
same "state" "$(status_of "$name" state)" clean

step "nothing that the commit waits for"
for pid in "$agent" $(service_pids); do
    before=$top$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
    mkdir -p "$group/below"
    echo "$pid" > "$group/below/cgroup.procs"
    refused 2 "process $pid of zbig itself is in $group/below" "cgroup=$group"
    echo "$pid" > "$before/cgroup.procs"
    rmdir "$group/below"
done
frozen_is 0 || fail "it is frozen"

step "the state of one instant"
in_group ordered_writer "$work/file"
writer=$!
last=0
for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do
    expect 0 zbig commit "$name" --freeze "cgroup=$group"
    frozen_is 0 || fail "frozen after a commit"
    committed
    of_one_instant || fail "committed $first and $second"
    [ "$first" -gt "$last" ] || fail "the writer stands still at $first"
    last=$first
done
kill -0 "$writer"

step "without it, torn sooner or later"
for ((round = 1; round <= 60; round++)); do
    expect 0 zbig commit "$name"
    committed
    of_one_instant || break
done
[ "$round" -le 60 ] || fail "60 commits under a writer, and none is torn: does this test see it?"
printf 'commit %s: %s and %s\n' "$round" "$first" "$second"

step "who was frozen already stays so"
echo 1 > "$group/cgroup.freeze"
until_true 10 frozen_is 1
expect 0 zbig commit "$name" --freeze "cgroup=$group"
frozen_is 1 || fail "the commit has thawed what it has not frozen"
echo 0 > "$group/cgroup.freeze"

step "a commit that fails"
expect 0 zbig attach "$db" /A --name "$name-b" --socket-only
head -c 4096 /dev/urandom > "$work/page"
write_at "$name-b" 0 "$work/page"
expect 0 zbig commit "$name-b"
expect 3 zbig commit "$name" --freeze "cgroup=$group"
frozen_is 0 || fail "frozen after a conflict"
expect 0 zbig detach "$name-b"
kill -9 "$writer"
until_true 10 is_empty
expect 0 zbig abort "$name"
[ ! -e "$state/devices/$name/frozen" ] || fail "the mark is there still"

# A program that waits in the kernel for a file of a server that is stopped.
step "a program that does not come to a stop"
[ "$front_end" = fuse ] || { stop_agent && exit 0; }
zbig create "$work/stuck.fs" /A --size 64M > /dev/null
expect 0 zbig attach "$work/stuck.fs" /A --name "$name-stuck" --fuse "$work/stuck"
# get_stuck N: at the Nth place of the file, of which the kernel has nothing yet.
get_stuck() {
    local lock pid
    for lock in "$state"/servers/*/lock; do
        pid=$(cut -d ' ' -f 1 "$lock")
        ! tr '\0' ' ' < "/proc/$pid/cmdline" | grep -qF "stuck.fs" || stuck_server=$pid
    done
    kill -STOP "$stuck_server"
    in_group dd "if=$work/stuck" of=/dev/null bs=4K count=1 "skip=$(($1 * 4096))" status=none
    reader=$!
    sleep 0.3
}
at_end 'kill -CONT "$stuck_server" 2> /dev/null'
get_stuck 1
refused 5 "did not come to a stop" "cgroup=$group"
frozen_is 0 || [ "$(< "$group/cgroup.freeze")" = 0 ] || fail "it was left to freeze"

step "the agent dies with programs frozen"
is_freezing() { [ "$(< "$group/cgroup.freeze")" = 1 ]; }
is_let_go() { [ "$(< "$group/cgroup.freeze")" = 0 ]; }
zbig commit "$name" --freeze "cgroup=$group" 2> /dev/null &
commit=$!
until_true 5 is_freezing || fail "it was not frozen"
kill_agent
until_true 2 is_let_go || fail "frozen after the agent's death"
wait "$commit" && fail "the commit succeeded without its agent"
start_agent  # which ends the server that does not answer, and starts another
wait "$reader"

step "with who was to thaw them, too"
get_stuck 2
zbig commit "$name" --freeze "cgroup=$group" 2> /dev/null &
commit=$!
until_true 5 is_freezing || fail "it was not frozen"
holder=
for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    words=$({ tr '\0' ' ' < "$process/cmdline"; } 2> /dev/null || true)
    [[ $pid = "$agent" || $words != *zbigd\ *"$state"* ]] || holder=$pid
done
kill -9 "$holder" "$agent"
wait "$agent" 2> /dev/null || true
wait "$commit" && fail "the commit succeeded without its agent"
is_freezing || fail "somebody thawed it"
start_agent
is_let_go || fail "frozen when the next agent had started"
[ ! -e "$state/devices/$name/frozen" ] || fail "the mark is there still"
wait "$reader"
expect 0 zbig commit "$name" --freeze "cgroup=$group"
same "commit" "$out" "nothing to commit"
expect 0 zbig detach "$name-stuck"
expect 0 zbig detach "$name"
stop_agent
