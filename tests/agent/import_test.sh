#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# zbig import into a database that the agent has open goes through the agent: one transaction, which
# devices follow; a device with writes to the same block has a conflict; what is cut short, or does
# not fit, changes nothing.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need qemu-io openssl curl python3

db=$work/Data.fs
zbig create "$db" /A --size 40M
zbig create "$db" /raw --raw
pattern 41943040 first > "$work/first"
start_agent
zbig attach "$db" /A --socket-only > /dev/null
zbig attach "$db" /A --name other --socket-only > /dev/null

newest() { zbig log "$db" -n 1 --json | field tid; }
unchanged() { same "newest transaction" "$(newest)" "$tid"; }

step "one transaction, and all devices show it"
expect 0 zbig import "$db" /A "$work/first" -m "the first" --user eve
tid=$out
unchanged
same "its text" "$(zbig log "$db" -n 1 --json | field description)" "the first"
same "its user" "$(zbig log "$db" -n 1 --json | field user)" eve
for device in A other; do
    same "view of $device" "$(status_of "$device" tid)" "$tid"
    read_device "$device" | cmp - "$work/first"
done
zbig export "$db" /A | cmp - "$work/first"
expect 0 zbig import "$db" /A "$work/first"
same "again" "$out" "nothing changed"
unchanged

step "from a pipe, at an offset, with zeros, and of a bare file beyond its end"
{ pattern 5000 pipe; head -c 5000000 /dev/zero; } > "$work/piped"
expect 0 zbig import "$db" /A - --offset 1000 --format auto < <(cat "$work/piped")
dd if="$work/piped" of="$work/first" bs=1000 seek=1 conv=notrunc status=none
zbig export "$db" /A | cmp - "$work/first"
read_device A | cmp - "$work/first"
truncate -s 9M "$work/sparse"
expect 0 zbig import "$db" /raw "$work/sparse"
same "its size" "$(zbig info "$db" /raw --json | field size)" 10485760
tid=$(newest)

step "a device with writes of its own keeps them, and its commit is a conflict"
pattern 4096 page > "$work/page"
write_at other 8192 "$work/page"
pattern 4096 theirs > "$work/theirs"
expect 0 zbig import "$db" /A "$work/theirs" --offset 4096
read_device A 8192 | tail -c 4096 | cmp - "$work/theirs"
read_device other 12288 | tail -c 4096 | cmp - "$work/page"
expect 3 zbig commit other
expect 0 zbig commit other --merge
zbig export "$db" /A --offset 4096 --length 8192 | cmp - <(cat "$work/theirs" "$work/page")
tid=$(newest)

step "what does not go changes nothing"
expect 2 zbig import "$db" /A "$work/theirs" --offset 40M
holds "past the end" "$err" "end past /A"
expect 4 zbig import "$db" /nothing "$work/theirs"
expect 2 zbig import "$db" /A "$work/theirs" -m "$(head -c 70000 /dev/zero | tr '\0' m)"
expect 2 zbig import "$db" /A "$work"
unchanged
# An upload that ends too early.
python3 - "$ZBIG_SOCKET" "$db" << 'END'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"POST /v1/import?volume=/A&url=" + sys.argv[2].encode() + b" HTTP/1.1\r\nHost: x\r\n"
          b"Content-Type: application/octet-stream\r\nContent-Length: 1000000\r\n\r\n"
          + b"x" * 900000)
s.shutdown(socket.SHUT_WR)
reply = s.recv(65536)
assert b" 500 " in reply and b"did not come whole" in reply, reply
END
for bad in 'volume=/A' "url=$db" "url=$db&volume=/A&nothing=1" "url=$db&volume=/A&offset=x"; do
    reply=$(curl -s --unix-socket "$ZBIG_SOCKET" "http://zbig/v1/import?$bad" \
        -H 'Content-Type: application/octet-stream' --data-binary abc)
    holds "'$bad'" "$reply" '"code":"invalid"'
done
unchanged
same "uploads left" "$(find "$state" -name 'upload*' | wc -l)" 0

step "curl imports too"
reply=$(curl -s --unix-socket "$ZBIG_SOCKET" "http://zbig/v1/import?url=$db&volume=/A&offset=0" \
    -H 'Content-Type: application/octet-stream' --data-binary "@$work/page")
holds "the reply" "$reply" "\"tid\":\"$(newest)\""
read_device A 4096 | cmp - "$work/page"

step "a database that another program has open is locked, whatever agent runs"
zbig create "$work/Other.fs" /B --size 1M
python3 - "$work/Other.fs.lock" "$work/locked" << 'END' &
import fcntl, os, sys, time
f = open(sys.argv[1], "r+")
fcntl.flock(f, fcntl.LOCK_EX)
open(sys.argv[2], "w").close()
while os.path.exists(sys.argv[2]): time.sleep(0.05)
END
locker=$!
until_true 10 test -e "$work/locked"
expect 5 zbig import "$work/Other.fs" /B "$work/page"
holds "the error" "$err" "Other.fs"
rm "$work/locked"
wait "$locker"
expect 5 zbig create "$db" /C --size 1M
holds "the advice" "$err" "zbigd"

expect 0 zbig check "$db"
expect 0 zbig detach A
expect 0 zbig detach other
expect 0 zbig create "$db" /C --size 1M
stop_agent
