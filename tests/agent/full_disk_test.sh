#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The disk of the database, and that of the state folder, is full: commit and write fail with one
# clear line, the database and the dirty data are as they were, and it works once there is room.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need qemu-io openssl

# full_disk FOLDER SIZE: a small file system there.
small_disk() {
    mkdir -p "$1"
    mount -t tmpfs -o "size=$2" none "$1" 2> /dev/null || skip "no small tmpfs can be mounted here"
    at_end "umount -l '$1'"
}
small_disk "$work/db" 6M
db=$work/db/Data.fs
zbig create "$db" /A --size 16M
pattern 4194304 one > "$work/one"
pattern 4194304 two > "$work/two"
start_agent
zbig attach "$db" /A --socket-only > /dev/null

step "commit on a full disk"
write_at A 0 "$work/one"
expect 0 zbig commit A
tid=$out
write_at A 4194304 "$work/two"
expect 1 zbig commit A
holds "commit" "$err" "No space left"
same "lines of the error" "$(wc -l <<< "$err")" 2
same "state" "$(status_of A state)" dirty
same "dirty" "$(status_of A dirty_bytes)" 4194304
same "newest transaction" "$(zbig log "$db" -n 1 --json | field tid)" "$tid"
expect 0 zbig check "$db"
read_device A 8388608 | cmp - <(cat "$work/one" "$work/two")
mount -o remount,size=32M "$work/db"
expect 0 zbig commit A
zbig export "$db" /A --length 8388608 | cmp - <(cat "$work/one" "$work/two")
expect 0 zbig detach A
stop_agent

step "the state folder is full"
state=$work/state2
small_disk "$state" 2M
start_agent
zbig attach "$db" /A --socket-only > /dev/null
if qemu-io -f raw -c "write -s $work/two 0 4194304" "$(status_of A nbd)" > "$work/out" 2>&1; then
    holds "write" "$(cat "$work/out")" "No space left"
fi
is_state A dirty || is_state A clean || is_state A failed || fail "state $(status_of A state)"
mount -o remount,size=32M "$state"
expect 0 zbig abort A
read_device A 8388608 | cmp - <(cat "$work/one" "$work/two")
write_at A 0 "$work/two"
expect 0 zbig commit A
zbig export "$db" /A --length 4194304 | cmp - "$work/two"
expect 0 zbig detach A
stop_agent
