#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# `zbig commit --freeze fs`: what is committed of a mounted file system needs no repair, whoever
# writes to it, on /dev/nbdX and on a loop device over a FUSE file; and it is always thawed.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/../agent/lib.sh"
need mkfs.ext4 e2fsck dumpe2fs fsfreeze losetup

db=$work/Data.fs
zbig create "$db" /A --size 32M --block-size 256K > /dev/null
zbig create "$db" /L --size 16M --block-size 256K > /dev/null
start_agent
expect 0 zbig attach "$db" /A --name F --nbd
node=$out
mkfs.ext4 -q -b 4096 "$node"
mkdir "$work/mount" "$work/copy"
expect 2 zbig commit F --freeze fs
holds "unmounted" "$err" "no file system is mounted from $node"
expect 0 zbig commit F -m "made"
mount "$node" "$work/mount"
at_end 'umount -l "$work/mount" 2> /dev/null'

# It appends, makes and removes for ever, and says nothing of it to anybody.
write_on() {
    local i
    for ((i = 0;; i++)); do
        head -c 5000 /dev/urandom >> "$1/grows"
        mkdir "$1/folder$i"
        echo "$i" > "$1/folder$i/file"
        [ "$i" -lt 5 ] || rm -r "$1/folder$((i - 5))"
    done
}
# goes_on MOUNT: its writer is not stopped.
grown() { [ "$(stat -c %s "$1/grows" 2> /dev/null || echo 0)" -gt "$2" ]; }
goes_on() {
    until_true 20 grown "$1" "$(stat -c %s "$1/grows" 2> /dev/null || echo 0)" ||
        fail "the writer of $1 does not go on"
}
# needs_no_repair VOLUME TID MOUNT
needs_no_repair() {
    zbig export "$db" "$1" --at "$2" -o "$work/image"
    ! dumpe2fs -h "$work/image" 2> /dev/null | grep -q needs_recovery || fail "$2: to be recovered"
    e2fsck -fn "$work/image" > "$work/fsck" 2>&1 || fail "$2: $(< "$work/fsck")"
    mount -o ro,loop "$work/image" "$work/copy"
    cmp "$work/copy/grows" <(head -c "$(stat -c %s "$work/copy/grows")" "$3/grows")
    umount "$work/copy"
    rm "$work/image"
}

step "under a writer"
write_on "$work/mount" &
writer=$!
at_end 'kill "$writer" 2> /dev/null'
goes_on "$work/mount"
for _ in 1 2 3; do
    expect 0 zbig commit F --freeze fs
    [ ! -e "$state/devices/F/frozen" ] || fail "the mark is there still"
    goes_on "$work/mount"
    needs_no_repair /A "$out" "$work/mount"
done
expect 0 zbig commit F
zbig export "$db" /A --at "$out" -o "$work/image"
dumpe2fs -h "$work/image" 2> /dev/null | grep -q needs_recovery ||
    fail "a commit without --freeze fs looks frozen, too: does this test see it?"
rm "$work/image"

step "deaths of server and agent during it"
for round in 1 2 3 4 5 6 7 8; do
    zbig commit F --freeze fs > /dev/null 2>&1 &
    commit=$!
    sleep "0.0$((RANDOM % 10))"
    case $((round % 2)) in
        0) kill -9 "$(server_pid)" ;;
        1) kill_agent && start_agent ;;
    esac
    wait "$commit" || true
    goes_on "$work/mount"
done
until_true 20 zbig commit F --freeze fs > "$work/tid" 2> /dev/null || fail "no commit any more"
goes_on "$work/mount"
needs_no_repair /A "$(tail -n 1 "$work/tid")" "$work/mount"

step "a commit that fails"
expect 0 zbig attach "$db" /A --name G --socket-only
head -c 4096 /dev/urandom > "$work/page"
write_at G $((31 << 20)) "$work/page"
expect 0 zbig commit G
expect 3 zbig commit F --freeze fs
goes_on "$work/mount"
expect 0 zbig detach G

step "frozen by somebody else"
fsfreeze -f "$work/mount"
expect 5 zbig commit F --freeze fs
holds "commit" "$err" "$work/mount is frozen already"
echo "fs $work/mount" > "$state/devices/F/frozen"
kill_agent
start_agent # it takes the mark for what an agent before left
goes_on "$work/mount"
until_true 10 [ ! -e "$state/devices/F/frozen" ] || fail "the mark is there still"
kill "$writer"
wait "$writer" || true
umount "$work/mount"
expect 0 zbig detach F --discard

step "on a loop device over a file"
expect 0 zbig attach "$db" /L --fuse "$work/file"
loop=$(losetup --find --show "$work/file")
at_end 'losetup -d "$loop" 2> /dev/null'
mkfs.ext4 -q -b 4096 "$loop"
mount "$loop" "$work/mount"
write_on "$work/mount" &
writer=$!
goes_on "$work/mount"
for _ in 1 2; do
    expect 0 zbig commit L --freeze fs
    goes_on "$work/mount"
    needs_no_repair /L "$out" "$work/mount"
done
kill "$writer"
wait "$writer" || true
umount "$work/mount"
losetup -d "$loop"
expect 0 zbig detach L --discard
stop_agent
