#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# `zbig attach --nbd`: the names of the device, what programs that map it see and write, and its
# end: refused, clean, and by force in every state of server and programs.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/../agent/lib.sh"

db=$work/Data.fs
zbig create "$db" /A --size 8M --block-size 256K > /dev/null
zbig create "$db" /F --dtype '<f8' --shape 100,200 > /dev/null
start_agent

step "its names"
expect 0 zbig attach "$db" /A --nbd
node=$out
[ -b "$node" ] || fail "no node: $node"
same "the link" "$(readlink -f /dev/zbig/A)" "$node"
same "node in the status" "$(status_of A node)" "$node"
same "size" "$(blockdev --getsize64 "$node")" 8388608
expect 0 zbig attach "$db" /F --nbd /dev/nbd5
same "the node asked for" "$out" /dev/nbd5
holds "properties" "$(cat /run/zbig/udev/zbig:F:*.env)" 'ZBIG_SHAPE="100,200"'
holds "properties" "$(cat /run/zbig/udev/zbig:F:*.env)" 'ZBIG_DTYPE="<f8"'
expect 5 zbig attach "$db" /A --name other --nbd /dev/nbd5
holds "a node in use" "$err" "/dev/nbd5: the device is in use"
expect 4 zbig status other
expect 0 zbig detach /dev/zbig/F

step "a program maps it; the database has what it wrote"
truncate -s 8M "$work/model"
for ending in none fsync; do
    seed=$RANDOM
    byte_writer change "$node" "$seed" 40 "$ending"
    byte_writer change "$work/model" "$seed" 40
    expect 0 zbig commit "$node" -m "seed $seed"
    zbig export "$db" /A | cmp - "$work/model" || fail "seed $seed"
done
holds "log" "$(zbig log "$db" /A)" "seed $seed"

step "what another device commits appears in locked and read-only mappings"
expect 0 zbig attach "$db" /A --name B --nbd
expect 0 zbig attach "$db" /A --name R --nbd --read-only
coproc LOCKED { exec held_mapping "$node" locked 2> "$work/locked.err"; }
ask() {
    echo "$*" >&"${LOCKED[1]}"
    read -r -t 60 reply <&"${LOCKED[0]}" || fail "$*: no reply: $(cat "$work/locked.err")"
}
dd if=/dev/zbig/R of=/dev/null bs=1M status=none
for round in 1 2 3; do
    text=round$round-$RANDOM
    printf '%s' "$text" | dd of=/dev/zbig/B bs=1 seek=$((round * 2000000)) conv=notrunc status=none
    expect 0 zbig commit B
    ask await $((round * 2000000)) "$text" 10
    [ "$reply" != never ] || fail "round $round: the locked mapping is stale"
    step "fresh $reply ms after the commit"
    dd if=/dev/zbig/R bs=1 skip=$((round * 2000000)) count=${#text} status=none |
        cmp - <(printf '%s' "$text") || fail "the read-only device is stale"
done
if printf x | dd of=/dev/zbig/R bs=1 conv=notrunc,fsync status=none 2> "$work/err"; then
    fail "a read-only device was written"
fi
expect 0 zbig detach R

step "detach refuses what is dirty, and what is in use"
ask write 100 mine
expect 5 zbig detach A
holds "dirty" "$err" "4096 uncommitted bytes"
expect 0 zbig abort A
ask read 100 4
[ "$reply" != mine ] || fail "the abort does not show"
expect 5 zbig detach A
holds "in use" "$err" "(held_mapping)"
ask write 200 kept
ask read 200 4
same "it is there still" "$reply" kept

step "by force within 10 s, with a server that is stuck, and nothing is lost"
server=$(server_pid)
sync -d "$node"
kill -STOP "$server"
begin=$SECONDS
expect 0 zbig detach A --force
took=$((SECONDS - begin))
kill -CONT "$server" 2> /dev/null || true
[ "$took" -le 10 ] || fail "it took $took s"
# A page that is in memory can be read still, and no other.
ask read 200 4
same "what the program has in memory" "$reply" kept
eval "exec ${LOCKED[1]}>&-"
wait "$LOCKED_PID" || true
same "state" "$(status_of A state)" kept
until_true 20 is_state B clean || fail "B: $(status_of B state)"
expect 0 zbig attach "$db" /A --name A --nbd
dd if="$out" bs=1 skip=200 count=4 status=none | cmp - <(printf kept)
expect 0 zbig detach A --discard

step "by force in the middle of a commit that waits for a server that is stuck"
expect 0 zbig attach "$db" /A --name A --nbd
printf x | dd of=/dev/zbig/A bs=1 conv=notrunc status=none
server=$(server_pid)
kill -STOP "$server"
zbig commit A > "$work/commit" 2>&1 &
commit=$!
sleep 1
begin=$SECONDS
expect 0 zbig detach A --force
[ $((SECONDS - begin)) -le 10 ] || fail "it took $((SECONDS - begin)) s"
! wait "$commit" || fail "the commit went through"
expect 0 zbig detach A --discard

step "by force with a server that is dead, and one that is well"
for how in dead well; do
    expect 0 zbig attach "$db" /A --name A --nbd
    printf x | dd of=/dev/zbig/A bs=1 conv=notrunc status=none
    [ $how = well ] || kill -9 "$(server_pid)"
    begin=$SECONDS
    expect 0 zbig detach A --force
    [ $((SECONDS - begin)) -le 10 ] || fail "$how: it took $((SECONDS - begin)) s"
    [ "$how" = dead ] || same "kept" "$out" "kept 4096 uncommitted bytes for the next attach"
    zbig detach A --discard > /dev/null 2>&1 || true
done
expect 0 zbig detach B

step "100 cycles, ten at a time, leave nothing behind"
traces() {
    echo "descriptors $(find "/proc/$agent/fd" -mindepth 1 | wc -l)"
    echo "threads $(find "/proc/$agent/task" -mindepth 1 -maxdepth 1 | wc -l)"
    echo "processes $(cat /proc/[0-9]*/comm 2> /dev/null | grep -cxE 'nbdkit|zbigd.*|zbig-fuse')"
    # Files of state, sockets, devices, links, what udev is told.
    find "$state" "$work/run" /sys/block/nbd*/pid /sys/block/nbd*/backend /dev/zbig /run/zbig/udev \
        2> /dev/null | sort || true
}
cycles() {
    local i
    for ((i = 0; i < $2; i++)); do
        zbig attach "$db" /A --name "c$1" --nbd > /dev/null && zbig detach "c$1" && continue
        echo "c$1" >> "$work/failed"
    done
}
cycles 0 1
same "status" "$(zbig status --json)" "[]"
sleep 1
traces > "$work/before"
for ((i = 0; i < 10; i++)); do
    cycles "$i" $((${CYCLES:-100} / 10)) 2>> "$work/cycles.err" &
    pids[i]=$!
done
wait "${pids[@]}"
[ ! -e "$work/failed" ] || fail "cycles failed: $(cat "$work/failed" "$work/cycles.err")"
same "status" "$(zbig status --json)" "[]"
sleep 1
traces > "$work/after"
diff "$work/before" "$work/after" || fail "something is left behind"
[ ! -e /dev/zbig ] || fail "links are left: $(ls /dev/zbig)"
! ls /sys/block/nbd*/pid 2> /dev/null || fail "devices are left"
stop_agent
