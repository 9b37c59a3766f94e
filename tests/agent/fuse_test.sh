#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Devices as files: where they are made, what happens to them when the server, zbig-fuse or the
# agent dies, and that nothing stays behind.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need_fuse
need openssl

db=$work/Data.fs
zbig create "$db" /A --size 4M
zbig create "$db" /dir/B --size 4M
pattern 65536 one > "$work/one"
start_agent
# part_is N FILE: the N-th 64 KiB of the file `here`.
part_is() { dd if=here bs=64K skip="$1" count=1 status=none 2> /dev/null | cmp -s - "$2"; }
put() { dd if="$work/one" of="$1" bs=64K seek="$2" conv=notrunc,fsync status=none; }

step "the default place, a file, a folder"
name=zbt$$
expect 0 zbig attach "$db" /A --name "$name"
node=$out
same "node" "$node" "$work/run/dev/$name"
same "size" "$(stat -c %s "$node")" 4194304
if [ "$(id -u)" = 0 ]; then
    same "link" "$(readlink "/dev/zbig/$name")" "$node"
    expect 0 zbig status "/dev/zbig/$name"
fi
expect 0 zbig detach "$node"
[ ! -e "$node" ] || fail "the mount point is left"
[ ! -L "/dev/zbig/$name" ] || fail "the link is left"
cd "$work"
expect 0 zbig attach Data.fs /A --fuse here --name "$name"
same "node" "$out" "$work/here"
put here 1
same "dirty" "$(status_of ./here dirty_bytes)" 65536
mkdir folder
echo mine > folder/mine
expect 0 zbig attach "$db" /dir/B --fuse folder --name "$name-b"
same "node" "$out" "$work/folder/$name-b"
put "$out" 0
expect 0 zbig commit ./here "folder/$name-b"
zbig export "$db" /A --offset 65536 --length 65536 | cmp - one
zbig export "$db" /dir/B --length 65536 | cmp - one
cmp <(echo mine) folder/mine

step "what is in the way"
expect 2 zbig attach "$db" /A --fuse folder/mine
expect 5 zbig attach "$db" /A --fuse here
expect 4 zbig attach "$db" /A --fuse missing/folder/file
if [ ! -e /sys/module/nbd ] && ! modprobe -nq nbd; then
    expect 1 zbig attach "$db" /A --nbd auto
    holds "no nbd here: what to do" "$err" "with --fuse PATH"
fi

step "a program uses the file: detach refuses, by force it does not"
exec 3< here
expect 5 zbig detach ./here
holds "detach" "$err" "--force"
same "state" "$(status_of ./here state)" clean
exec 3<&-
put here 2
exec 3< here
expect 0 zbig detach ./here --force
holds "detach" "$out" "kept 65536"
exec 3<&-
expect 0 zbig attach "$db" /A --fuse here
same "dirty" "$(status_of ./here dirty_bytes)" 65536
part_is 2 one

step "the server dies: the file stays, with what was flushed"
kill -9 "$(server_pid)"
until_true 15 part_is 2 one ||
    fail "the file does not come back: $(zbig status ./here)"
until_true 10 is_state "$name" dirty || fail "state $(status_of ./here state)"
put here 3
expect 0 zbig commit ./here
zbig export "$db" /A --offset 131072 --length 131072 | cmp - <(cat one one)

step "zbig-fuse dies: another makes the file"
fuse=$(cut -d ' ' -f 1 "$state/devices/$name/fuse.lock")
put here 4
kill -9 "$fuse"
until_true 15 part_is 4 one ||
    fail "the file does not come back: $(zbig status ./here)"

step "the agent dies: the file works on, and the next agent has the same"
fuse=$(cut -d ' ' -f 1 "$state/devices/$name/fuse.lock")
kill_agent
put here 5
start_agent
same "zbig-fuse" "$(cut -d ' ' -f 1 "$state/devices/$name/fuse.lock")" "$fuse"
expect 0 zbig commit ./here
zbig export "$db" /A --offset 262144 --length 131072 | cmp - <(cat one one)

step "everything dies"
put here 6
kill_agent
for pid in $(service_pids); do kill -9 "$pid"; done
start_agent
part_is 6 one

step "a view that moves is seen by who has the file mapped or open"
expect 0 zbig commit ./here
expect 0 zbig attach "$db" /A --fuse second --name "$name-2"
cmp here second
put second 10
expect 0 zbig commit ./second
until_true 10 eval '[ "$(status_of ./here tid)" = "$out" ]' || fail "the follower stays behind"
until_true 5 cmp -s here second || fail "the follower shows old data"
put here 11
expect 0 zbig abort ./here
cmp here second

for device in ./here ./second "folder/$name-b"; do expect 0 zbig detach "$device"; done
[ ! -e here ] || fail "the mount point is left"
same "mounts left" "$(grep -c " $work/" /proc/self/mountinfo)" 0
same "devices left" "$(ls "$state/devices")" ""
until_true 5 eval '[ -z "$(service_pids)" ]' || fail "processes are left: $(service_pids)"
stop_agent
