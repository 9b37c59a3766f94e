#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A file system on a device: what was synced is in the database after a commit, and while it is
# mounted the device's view stays. (That it works through deaths: tests/agent/crash_test.sh.)

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/../agent/lib.sh"
need mkfs.ext4

db=$work/Data.fs
zbig create "$db" /A --size 24M --block-size 256K > /dev/null
start_agent
expect 0 zbig attach "$db" /A --nbd
node=$out
mkfs.ext4 -q -b 4096 -O '^has_journal' "$node"
expect 0 zbig commit A -m "made"
mkdir "$work/mount"
mount "$node" "$work/mount"
at_end 'umount -l "$work/mount" 2> /dev/null'

head -c 300000 /dev/urandom > "$work/file1"
cp "$work/file1" "$work/mount/"
sync -f "$work/mount"

step "its view stays while it is mounted"
until_true 30 is_state A dirty || fail "state $(status_of A state)"
expect 5 zbig refresh A
holds "refresh" "$err" "is mounted"
expect 5 zbig abort A
holds "abort" "$err" "is mounted"
expect 5 zbig detach A
sync -f "$work/mount"
expect 0 zbig commit A -m "a file"
view=$(status_of A tid)
expect 0 zbig attach "$db" /A --name B --socket-only
write_at B $((20 << 20)) "$work/file1"
expect 0 zbig commit B
sleep 1
same "the view" "$(status_of A tid)" "$view"
same "feed" "$(status_of A feed)" mounted
echo more > "$work/mount/more"
sync -f "$work/mount"
expect 3 zbig commit A
holds "a commit above others' changes" "$err" "changed volume /A below it"

step "unmounted, it is committed and follows"
umount "$work/mount"
expect 0 zbig commit A
until_true 10 eval '[ "$(status_of A feed)" = following ]' || fail "feed $(status_of A feed)"
zbig export "$db" /A > "$work/image"
cmp "$work/image" "$node" || fail "the device is not what the database holds"
cmp -n 300000 "$work/file1" <(tail -c +$(((20 << 20) + 1)) "$work/image")
e2fsck -fn "$work/image" > "$work/fsck" 2>&1 || fail "$(cat "$work/fsck")"
expect 0 zbig detach A
expect 0 zbig detach B
stop_agent
