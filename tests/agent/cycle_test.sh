#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The whole cycle on FileStorage through the socket: attach, write, commit, export, abort, detach;
# two devices in one transaction; a conflict between two devices of one volume; nothing to commit.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need qemu-io openssl

db=$work/Data.fs
zbig create "$db" /A --size 8M
zbig create "$db" /B --size 4M
pattern 65536 one > "$work/one"
pattern 65536 two > "$work/two"
start_agent

step "attach, write, commit, export"
expect 0 zbig attach "$db" /A --socket-only
holds "node" "$out" "nbd+unix:///%2FA?socket="
same "state" "$(status_of A state)" clean
before=$(status_of A tid)
write_at A 131072 "$work/one"
same "state after a write" "$(status_of A state)" dirty
same "dirty bytes" "$(status_of A dirty_bytes)" 65536
same "view of a dirty device" "$(status_of A tid)" "$before"
expect 0 zbig commit A -m "the first" --user me
tid=$out
[[ $tid =~ ^[0-9a-f]{16}$ ]] || fail "commit printed '$tid'"
same "state after commit" "$(status_of A state)" clean
same "view after commit" "$(status_of A tid)" "$tid"
same "overlay after commit" "$(status_of A dirty_bytes)" 0
head -c 8M /dev/zero > "$work/model"
dd if="$work/one" of="$work/model" bs=64K seek=2 conv=notrunc status=none
zbig export "$db" /A -o "$work/a"
cmp "$work/a" "$work/model"
read_device A | cmp - "$work/model"
expect 0 zbig log "$db" /A --json
holds "log" "$out" '"description":"the first"'
holds "log" "$out" '"user":"me"'
same "result in the status" "$(zbig status A --json | field result)" committed

step "nothing to commit"
expect 0 zbig commit A
same "commit" "$out" "nothing to commit"
write_at A 131072 "$work/one"
same "state" "$(status_of A state)" dirty
expect 0 zbig commit A
same "the same bytes again" "$out" "nothing to commit"
same "state" "$(status_of A state)" clean
same "tid" "$(status_of A tid)" "$tid"

step "abort"
write_at A 0 "$work/two"
expect 0 zbig abort A
same "state" "$(status_of A state)" clean
read_device A | cmp - "$work/model"

step "two devices, one transaction"
expect 0 zbig attach "$db" /B --socket-only --name other
write_at A 0 "$work/two"
write_at other 1048576 "$work/one"
expect 0 zbig commit A other -m both
both=$out
same "view of A" "$(status_of A tid)" "$both"
same "view of other" "$(status_of other tid)" "$both"
dd if="$work/two" of="$work/model" bs=64K seek=0 conv=notrunc status=none
zbig export "$db" /A --at "$both" | cmp - "$work/model"
zbig export "$db" /A --at "$tid" | cmp - "$work/a"
zbig export "$db" /B --at "$both" --offset 1048576 --length 65536 | cmp - "$work/one"
same "transactions" "$(zbig log "$db" --json | grep -o '"tid"' | wc -l)" 4

step "two devices of one volume: the first that commits wins, the other has a conflict"
expect 0 zbig attach "$db" /A --socket-only
holds "node of the second" "$out" "A%23A-2"
write_at A 4096 "$work/one"
write_at A-2 262144 "$work/one"
expect 0 zbig commit A --user winner -m "I was first"
first=$out
same "a dirty device keeps its view" "$(status_of A-2 tid)" "$both"
expect 3 zbig commit A-2 --json
holds "conflict" "$out" '{"conflict":[{"volume":"/A","block":0,"offset":0,'
holds "conflict" "$out" "\"base_tid\":\"$both\",\"tid\":\"$first\",\"user\":\"winner\","
holds "conflict" "$out" '"description":"I was first"'
same "lines of the error" "$(wc -l <<< "$err")" 2
same "nothing was changed" "$(zbig log "$db" --json | field tid)" "$first"
same "dirty after a conflict" "$(status_of A-2 dirty_bytes)" 65536
write_at A 0 "$work/one"
expect 2 zbig commit A A-2
holds "two of one volume" "$err" "one after the other"
expect 0 zbig abort A A-2
same "view after abort" "$(status_of A-2 tid)" "$first"
expect 0 zbig detach A-2

step "a clean device follows what another commits, unless told not to"
expect 0 zbig attach "$db" /A --socket-only --name follower
expect 0 zbig attach "$db" /A --socket-only --name still --follow manual
expect 0 zbig attach "$db" /A --socket-only --name old --at "$tid"
write_at A 0 "$work/one"
expect 0 zbig commit A
new=$out
until_true 5 eval '[ "$(status_of follower tid)" = "$new" ]' || fail "the follower stays behind"
same "manual" "$(status_of still tid)" "$first"
expect 0 zbig refresh still
same "refresh" "$out" "$new"
read_device still | cmp - <(read_device A)
read_device old | cmp - "$work/a"
same "old" "$(status_of old feed)" pinned
expect 2 zbig refresh old
write_at still 0 "$work/two"
expect 5 zbig refresh still
expect 0 zbig abort still

step "detach refuses while dirty"
write_at A 0 "$work/two"
expect 5 zbig detach A
holds "detach" "$err" "65536 uncommitted bytes"
expect 0 zbig detach A --discard
expect 4 zbig status A
expect 0 zbig attach "$db" /A --socket-only
same "after a discard" "$(status_of A dirty_bytes)" 0

step "detach by force keeps, the next attach gives back"
write_at A 0 "$work/two"
expect 0 zbig detach A --force
holds "detach" "$out" "kept 65536"
same "state" "$(status_of A state)" kept
expect 4 zbig commit A
expect 5 zbig detach A
expect 0 zbig attach "$db" /A --socket-only
holds "attach" "$err" "65536 uncommitted bytes"
expect 0 zbig commit A
zbig export "$db" /A --length 65536 | cmp - "$work/two"

step "the database is locked while a writable device is attached, and only then"
expect 5 zbig create "$db" /locked --size 1M
for device in A other follower still; do expect 0 zbig detach "$device"; done
expect 0 zbig import "$db" /A "$work/one"
tid=$out
same "a read-only device sees it" "$(status_of old state)" clean
expect 0 zbig attach "$db" /A --socket-only --read-only --name reader
same "reader" "$(status_of reader tid)" "$tid"
expect 0 zbig import "$db" /A "$work/two"
until_true 5 eval '[ "$(status_of reader tid)" = "$out" ]' || fail "the reader stays behind"
read_device reader 65536 | cmp - "$work/two"
expect 1 zbig commit reader
expect 0 zbig detach old
expect 0 zbig detach reader
same "devices" "$(zbig status --json)" "[]"
until_true 5 eval '[ -z "$(service_pids)" ]' || fail "a server is left: $(service_pids)"
stop_agent
