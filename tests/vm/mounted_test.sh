#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A file system on a device: it works through kill -9 of server and agent, what was synced is in the
# database after a commit, and while it is mounted the device's view stays.

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

step "written through deaths of the server and the agent"
for round in 1 2 3 4 5 6; do
    head -c $((round * 300000)) /dev/urandom > "$work/file$round"
    cp "$work/file$round" "$work/mount/" &
    copy=$!
    case $((round % 3)) in
        0) kill -9 "$(server_pid)" ;;
        1) kill_agent && start_agent ;;
        2) kill -9 "$(server_pid)" && kill_agent && start_agent ;;
    esac
    wait "$copy" || fail "round $round: the copy failed"
    sync -f "$work/mount" || fail "round $round: sync failed"
done
same "the node" "$(status_of A node)" "$node"
echo 3 > /proc/sys/vm/drop_caches
for round in 1 2 3 4 5 6; do cmp "$work/file$round" "$work/mount/file$round"; done

step "its view stays while it is mounted"
until_true 30 is_state A dirty || fail "state $(status_of A state)"
expect 5 zbig refresh A
holds "refresh" "$err" "is mounted"
expect 5 zbig abort A
holds "abort" "$err" "is mounted"
expect 5 zbig detach A
sync -f "$work/mount"
expect 0 zbig commit A -m "six files"
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
