#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A device ends with a whole page, an array anywhere: what is written past the array's end is not
# stored, and the bytes that its file has there stay as they are.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need qemu-io python3

db=$work/Data.fs
zbig create "$db" /A --dtype uint8 --shape 10000 --block-size 64K > /dev/null
file=oid:$(zbig info "$db" /A --json | field zfile)
start_agent

step "the file below is longer than the array"
expect 0 zbig attach "$db" "$file" --name F --socket-only --size 64K
pattern 65536 file > "$work/model"
write_at F 0 "$work/model"
expect 0 zbig commit F
expect 0 zbig detach F

step "a device larger than the array"
expect 2 zbig attach "$db" /A --socket-only --size 12289
holds "attach" "$err" "larger than the array /A, which has 10000"
expect 0 zbig attach "$db" /A --socket-only --size 12288
same "size" "$(status_of A size)" 12288
expect 0 zbig detach A

step "writes across the array's end"
expect 0 zbig attach "$db" /A --socket-only
same "size" "$(status_of A size)" 12288
head -c 20 /dev/zero | tr '\0' x > "$work/x"
write_at A 9990 "$work/x"
expect 0 zbig commit A
[ "$out" != "nothing to commit" ] || fail "nothing was committed"
head -c 10 "$work/x" | dd of="$work/model" bs=1 seek=9990 conv=notrunc status=none
zbig export "$db" "$file" | cmp - "$work/model" || fail "the file"
zbig export "$db" /A | cmp - <(head -c 10000 "$work/model") || fail "the array"
read_device A | cmp - <(head -c 10000 "$work/model" && head -c 2288 /dev/zero) || fail "the device"

step "writes past it"
write_at A 10000 "$work/x"
expect 0 zbig commit A
same "commit" "$out" "nothing to commit"
same "state" "$(status_of A state)" clean
zbig export "$db" "$file" | cmp - "$work/model" || fail "the file"
read_device A | cmp - <(head -c 10000 "$work/model" && head -c 2288 /dev/zero) || fail "the device"
expect 0 zbig detach A

step "a file without an array grows"
expect 0 zbig attach "$db" "$file" --name F --socket-only --size 128K
write_at F $((100 << 10)) "$work/x"
expect 0 zbig commit F
same "size" "$(zbig info "$db" "$file" --json | field size)" 131072
expect 0 zbig detach F
expect 0 zbig check "$db"

step "writes past it to mapped pages"
need_mapped
# store OFFSET TEXT: by a program that has the device mapped
store() {
    python3 - "$work/file" "$@" << 'PYTHON'
import mmap, sys
with open(sys.argv[1], "r+b") as f, mmap.mmap(f.fileno(), f.seek(0, 2)) as device:
    device[int(sys.argv[2]):int(sys.argv[2]) + len(sys.argv[3])] = sys.argv[3].encode()
PYTHON
}
attach_mapped M "$work/file"
store 9995 ABCDEFGH
same "before the commit" "$(tail -c +9996 "$work/file" | head -c 8)" ABCDEFGH
expect 0 zbig commit M
printf ABCDE | dd of="$work/model" bs=1 seek=9995 conv=notrunc status=none
zbig export "$db" "$file" --length 65536 | cmp - "$work/model" || fail "the file"
cmp "$work/file" <(head -c 10000 "$work/model" && head -c 2288 /dev/zero) || fail "the device"
expect 0 zbig detach M
stop_agent
