#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A Python program appends to a ZBigArray, and makes it shorter again, while devices of it are
# attached and mapped; what each of both writes to the new part the other sees.

# shellcheck disable=SC2016 source=tests/agent/zeo.sh
source "$(dirname "$0")/zeo.sh" "${1:-py3}"
need_arrays
db=$plain
name=zbt$$

cat > "$work/grow_array.py" << 'PYTHON'
import sys, transaction, zpeer, numpy
from ZODB.DB import DB

url, verb, argument = sys.argv[1:]
db = DB(zpeer.open_storage(url))
array = zpeer.lookup(db.open().root(), "/A")
if verb == "append":
    array.append(numpy.frombuffer(argument.encode(), dtype=numpy.uint8))
elif verb == "resize":
    array.resize((int(argument),))
elif verb == "tail":
    print(array[-int(argument):].tobytes().decode())
transaction.commit()
db.close()
PYTHON
array() { PYTHONPATH=$here/../peers "$python" -W ignore "$work/grow_array.py" "$plain" "$@"; }
size_is() { [ "$(stat -c %s "$1")" = "$2" ]; }
# sizes BYTES: both devices get it soon, and the status says so.
sizes() {
    local file
    for file in here there; do
        until_true 10 size_is "$work/$file" "$1" ||
            fail "$file has $(stat -c %s "$work/$file") bytes: $(zbig status "$name")"
    done
    until_true 10 eval '[ "$(status_of "$name" size)" = '"$1"' ]' || fail "the status"
}
# text_at FILE OFFSET LENGTH: by a program that maps the file as it is now.
text_at() {
    python3 - "$@" << 'PYTHON'
import mmap, sys
with open(sys.argv[1], "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as device:
    sys.stdout.write(device[int(sys.argv[2]):int(sys.argv[2]) + int(sys.argv[3])].decode())
PYTHON
}
store() {
    python3 - "$@" << 'PYTHON'
import mmap, sys
with open(sys.argv[1], "r+b") as f, mmap.mmap(f.fileno(), 0) as device:
    device[int(sys.argv[2]):int(sys.argv[2]) + len(sys.argv[3])] = sys.argv[3].encode()
PYTHON
}

zbig create "$db" /A --dtype uint8 --shape 10000 > /dev/null
start_agent
expect 0 zbig attach "$db" /A --name "$name" --fuse "$work/here"
expect 0 zbig attach "$db" /A --name "$name-r" --fuse "$work/there" --read-only
sizes 12288
coproc MAPPING { exec held_mapping "$work/here" 2> "$work/mapping.err"; }
ask() {
    echo "$*" >&"${MAPPING[1]}"
    read -r -t 60 reply <&"${MAPPING[0]}" || fail "$*: no reply: $(cat "$work/mapping.err")"
}
ask read 9990 5

step "what Python appends within the last page is seen in a mapping that was there before"
array append tail
ask await 10000 tail 10
[ "$reply" != never ] || fail "the mapping is stale: $(zbig status "$name")"
sizes 12288

step "what it appends beyond is seen by programs that map again"
array append "$(head -c 100000 /dev/zero | tr '\0' x)end"
sizes 110592
for file in here there; do
    same "$file" "$(text_at "$work/$file" 110004 3)" end
done
same "size for the next program" "$(zbig info "$db" /A --json | field size)" 110007

step "what a program writes there is committed, and seen by Python and the other device"
store "$work/here" 110002 DONE
expect 0 zbig commit "$name"
same "in Python" "$(array tail 5)" "DONEd"
until_true 10 eval '[ "$(text_at "$work/there" 110002 4)" = DONE ]' || fail "the other device"

step "a device with uncommitted writes grows when they are committed"
store "$work/here" 0 mine
array append "$(head -c 9000 /dev/zero | tr '\0' y)"
until_true 10 size_is "$work/there" 122880 || fail "the device that is only read"
size_is "$work/here" 110592 || fail "it grew while it was dirty"
expect 0 zbig commit "$name" --merge  # the same block, other pages
sizes 122880
same "in Python" "$(array tail 3)" yyy

step "an array that became shorter: the device keeps its size, shows zeros, and says so"
cat "$work/here" "$work/there" > /dev/null  # so that the kernel has all of it
array resize 5000
until_true 10 eval '[ "$(status_of "$name" volume_size)" = 5000 ]' || fail "$(zbig status "$name")"
sizes 122880
zeros_past() { tail -c "+$1" "$work/here" | cmp -s - <(head -c $((122881 - $1)) /dev/zero); }
until_true 10 zeros_past 5001 || fail "what the array lost is shown"
holds "status" "$(zbig status "$name")" "the volume has 4.9 KiB"
holds "log" "$(cat "$work/agent.log")" "volume /A has 5000 bytes now; device $name keeps its 122880"
store "$work/here" 100 kept
store "$work/here" 100000 past
expect 2 zbig commit "$name"
holds "commit" "$err" "the array /A ends at 5000"
same "nothing is lost" "$(text_at "$work/here" 100 4)" kept

step "it comes back as large as it was when its server died, and its agent"
kill -9 "$(server_pid)"
kill_agent
start_agent
until_true 30 is_state "$name" dirty || fail "$(zbig status "$name")"
until_true 30 is_state "$name-r" clean || fail "$(zbig status "$name-r")"
sizes 122880
same "what was written" "$(text_at "$work/here" 100000 4)" past
expect 0 zbig abort "$name"
kill -9 "$(server_pid)"
until_true 30 is_state "$name" clean || fail "$(zbig status "$name")"
sizes 122880

step "longer again, over bytes that the file has still"
array resize 200000
sizes 200704
same "bytes of before" "$(text_at "$work/here" 110002 4)" DONE
ask read 0 4
same "the mapping of the beginning" "$reply" mine

eval "exec ${MAPPING[1]}>&-"
for device in "$name" "$name-r"; do
    until_true 10 eval 'zbig detach $device > "$work/detach" 2>&1' || fail "$(cat "$work/detach")"
done
expect 0 zbig check "$db"
stop_agent
