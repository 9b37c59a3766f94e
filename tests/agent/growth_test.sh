#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A volume becomes longer while devices of it are attached: those that follow grow, under the same
# name; programs that map them again see it all; and so it stays, whatever dies.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need openssl
need_mapped

db=$work/Data.fs
zbig create "$db" /A --raw --size 256K --block-size 64K > /dev/null
start_agent
id=growth$$
attach_mapped "$id-W" "$work/W"
attach_mapped "$id-R" "$work/R" --read-only
attach_mapped "$id-X" "$work/X" --size 256K

size_of() {
    if [ "$front_end" = nbd ]; then blockdev --getsize64 "$1"; else stat -L -c %s "$1"; fi
}
# sizes KIBIBYTES: of W and R, in the kernel and in the status; X has the size that was asked for.
sizes() {
    local device
    for device in W R; do
        same "size of $device" "$(size_of "$work/$device")" $(($1 << 10))
        same "size of $device in the status" "$(status_of "$id-$device" size)" $(($1 << 10))
    done
    same "size of X" "$(size_of "$work/X")" 262144
}
# import OFFSET SEED BYTES: by another client, through the agent.
import() {
    pattern "$3" "$2" > "$work/piece"
    expect 0 zbig import "$db" /A "$work/piece" --offset "$1"
    dd if="$work/piece" of="$work/model" bs=1M seek="$1" oflag=seek_bytes conv=notrunc status=none
}
agree() {
    local device
    for device in W R; do cmp "$work/model" "$work/$device" || fail "$1: $device"; done
    cmp <(head -c 262144 "$work/model") "$work/X" || fail "$1: X"
}
# hold NAME: a program maps $work/NAME as it is now. ask NAME COMMAND: sets reply.
declare -A to from pids
hold() {
    local in out
    mkfifo "$work/$1.in" "$work/$1.out"
    held_mapping "$work/${1%%-*}" < "$work/$1.in" > "$work/$1.out" &
    pids[$1]=$!
    exec {in}> "$work/$1.in" {out}< "$work/$1.out"
    to[$1]=$in from[$1]=$out
}
ask() {
    echo "${*:2}" >&"${to[$1]}"
    read -r -t 60 reply <&"${from[$1]}" || fail "$*: no reply"
}
let_go() {
    kill "${pids[$1]}"
    wait "${pids[$1]}" || true
}

truncate -s 256K "$work/model"
hold W
node=$(status_of "$id-W" node)

step "a file that an import makes longer"
sizes 256
import 200000 one 300000
truncate -s 512K "$work/model"
sizes 512
agree "after the import"
same "the node" "$(status_of "$id-W" node)" "$node"
ask W read 200001 4
same "in the old mapping" "$reply" "$(tail -c +200002 "$work/model" | head -c 4)"

step "what is written to the new part is committed"
hold W-2
ask W-2 write 520000 grown
expect 0 zbig commit "$id-W"
printf grown | dd of="$work/model" bs=1 seek=520000 conv=notrunc status=none
zbig export "$db" /A | cmp - "$work/model" || fail "the file"
agree "after the commit"

step "a device with uncommitted writes stays as it is until they are committed or aborted"
for how in commit abort; do
    ask W-2 write 100 "$how"
    before=$(size_of "$work/W")
    import "$before" "$how" 1000
    truncate -s $((before + 65536)) "$work/model"
    same "size while dirty" "$(size_of "$work/W")" "$before"
    expect 0 zbig "$how" "$id-W"
    [ "$how" = abort ] || printf commit | dd of="$work/model" bs=1 seek=100 conv=notrunc status=none
    sizes $(((before >> 10) + 64))
    agree "after the $how"
done

step "it comes back as large as it was, whatever died, and grows again"
size=640
for dead in agent server both; do
    # A program keeps it in use.
    ask W-2 read 520000 5
    [ "$dead" = agent ] || kill -9 "$(server_pid)"
    [ "$dead" = server ] || { kill_agent; start_agent; }
    for device in W R X; do
        until_true 30 is_state "$id-$device" clean || fail "$dead: $(zbig status)"
    done
    sizes $size
    agree "$dead died"
    import $((size << 10)) "$dead" 5000
    size=$((size + 64))
    truncate -s ${size}K "$work/model"
    sizes $size
    agree "$dead died and it has grown since"
    same "the node" "$(status_of "$id-W" node)" "$node"
done
hold W-3
ask W-3 write $(((size << 10) - 10)) last
expect 0 zbig commit "$id-W"
printf last | dd of="$work/model" bs=1 seek=$(((size << 10) - 10)) conv=notrunc status=none
agree "the last commit"
until_true 10 grep -q "device $id-W has grown to $((size << 10)) bytes" "$work/agent.log" ||
    fail "the log"

step "a client of NBD keeps the size that it was told, and the next is told the new one"
if command -v nbdinfo > /dev/null; then
    same "size by NBD" "$(nbdinfo --size "$(status_of "$id-W" nbd)")" $((size << 10))
fi
for name in W W-2 W-3; do let_go "$name"; done
for device in W R X; do
    until_true 10 eval 'zbig detach "$id-$device" > "$work/detach" 2>&1' ||
        fail "$(cat "$work/detach")"
done
expect 0 zbig check "$db"
stop_agent
