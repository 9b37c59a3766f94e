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
zbig attach "$db" /A --socket-only --on-full error > /dev/null
if qemu-io -f raw -c "write -s $work/two 0 4194304" "$(status_of A nbd)" > "$work/out" 2>&1 &&
    ! grep -q "No space left" "$work/out"; then
    fail "a write without room succeeded"
fi
holds "write" "$(cat "$work/out")" "No space left"
is_state A dirty || is_state A clean || is_state A failed || fail "state $(status_of A state)"
mount -o remount,size=32M "$state"
expect 0 zbig abort A
read_device A 8388608 | cmp - <(cat "$work/one" "$work/two")
write_at A 0 "$work/two"
expect 0 zbig commit A
zbig export "$db" /A --length 4194304 | cmp - "$work/two"
expect 0 zbig detach A
stop_agent

# fill_up: until it waits for room. The writer's pid is in $writer, what it says in
# $work/writer.out.
waits() { [[ "$(status_of A waits_for)" == "room for what is not committed"* ]]; }
fill_up() {
    qemu-io -f raw -c "write -s $work/two 0 4194304" -c flush "$(status_of A nbd)" \
        > "$work/writer.out" 2>&1 &
    writer=$!
    until_true 20 waits || fail "it does not wait: $(zbig status A)"
    kill -0 "$writer" || fail "the writer ended: $(cat "$work/writer.out")"
}
writer_is_done() {
    wait "$writer" || fail "the writer failed: $(cat "$work/writer.out")"
    ! grep -q "No space" "$work/writer.out" || fail "the writer was told: $(cat "$work/writer.out")"
}

step "a writer waits for room, with a line in the log, and goes on when there is some"
state=$work/state3
small_disk "$state" 3M
start_agent
zbig attach "$db" /A --socket-only > /dev/null
fill_up
until_true 10 grep -q "device A: writers wait for room" "$work/agent.log" ||
    fail "no line in the log"
sleep 1
kill -0 "$writer" || fail "the writer ended: $(cat "$work/writer.out")"
mount -o remount,size=32M "$state"
writer_is_done
same "waits for" "$(status_of A waits_for)" ""
pattern 4194304 three > "$work/two"
expect 0 zbig commit A

step "a commit makes room on a disk that is full to the last page"
mount -o remount,size=6M "$state"
write_at A 8388608 "$work/one"
head -c 8000000 /dev/zero > "$state/ballast" 2> /dev/null || true
fill_up
expect 0 zbig commit A
zbig export "$db" /A --offset 8388608 --length 4194304 | cmp - "$work/one"
rm "$state/ballast"
writer_is_done
expect 0 zbig commit A
zbig export "$db" /A --length 4194304 | cmp - "$work/two"

step "so does an abort"
write_at A 8388608 "$work/two"
head -c 8000000 /dev/zero > "$state/ballast" 2> /dev/null || true
fill_up
expect 0 zbig abort A
rm "$state/ballast"
writer_is_done
expect 0 zbig abort A
zbig export "$db" /A | cmp - <(read_device A)

step "detach --force ends the waiting, and keeps what was written"
write_at A 8388608 "$work/two"
head -c 8000000 /dev/zero > "$state/ballast" 2> /dev/null || true
pattern 4194304 four > "$work/two"
fill_up
begin=$SECONDS
expect 0 zbig detach A --force
[ $((SECONDS - begin)) -le 10 ] || fail "it took $((SECONDS - begin)) s"
wait "$writer" || true
grep -qi "error" "$work/writer.out" || fail "the writer was told nothing: $(cat "$work/writer.out")"
rm "$state/ballast"
expect 0 zbig attach "$db" /A --socket-only
read_uri "$(status_of A nbd)" 12582912 | tail -c 4194304 | cmp - <(pattern 4194304 three)
expect 0 zbig detach A --discard
stop_agent
