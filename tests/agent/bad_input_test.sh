#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Wrong requests, by the command line and by HTTP: one clear line and the right status each, and the
# agent goes on.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need curl python3

db=$work/Data.fs
zbig create "$db" /A --size 1M

step "no agent"
expect 6 zbig status
holds "status" "$err" "no agent at $ZBIG_SOCKET"
holds "hint" "$err" "zbigd --socket $ZBIG_SOCKET"
expect 6 zbig attach "$db" /A
expect 2 zbigd --nonsense
expect 2 zbigd --state
expect 0 zbigd --help
expect 0 zbigd --version
echo > "$work/file"
expect 4 zbigd --foreground --state "$work/file/state"
expect 2 zbigd --foreground --state "$work/s" --socket "$work/$(head -c 120 /dev/zero | tr '\0' x)"

start_agent
# refused STATUS PART COMMAND...: one line of error that names the verb, and at most one of advice.
refused() {
    local status=$1 part=$2
    shift 2
    expect "$status" "$@"
    holds "$*" "$err" "$part"
    [ "$(wc -l <<< "$err")" -le 2 ] || fail "$*: more than two lines: $err"
    same "$* on standard output" "$out" ""
}
step "the command line"
refused 4 "no device nothing" zbig status nothing
refused 4 "no device nothing" zbig commit nothing
refused 4 "no device nothing" zbig detach nothing
refused 4 "$work/nothing.fs" zbig attach "$work/nothing.fs" /A --socket-only
refused 4 "/B" zbig attach "$db" /B --socket-only
refused 2 "" zbig attach "$db" A --socket-only
refused 2 "--format" zbig attach "$db" /A --format ZBlk9 --socket-only
refused 2 "follow" zbig attach "$db" /A --follow never --socket-only
refused 2 "--size" zbig attach "$db" /A --size 1X --socket-only
refused 2 "device name" zbig attach "$db" /A --name a/b --socket-only
refused 2 "device name" zbig attach "$db" /A --name frozen --socket-only
refused 2 "only one of" zbig attach "$db" /A --socket-only --fuse "$work/x"
refused 2 "/dev/nbdN is wanted" zbig attach "$db" /A --nbd=/dev/sda
refused 2 "only one of" zbig attach "$db" /A --nbd --socket-only
refused 4 "" zbig attach "$db" /A --at 7fffffffffffff00 --socket-only
refused 6 "localhost:1" zbig attach 'zeo://localhost:1?wait_timeout=1' /A --socket-only
mkdir "$work/folder"
if zbig attach "$work/folder" /A --socket-only 2> /dev/null; then fail "a folder is no database"; fi
same "devices" "$(zbig status --json)" "[]"
expect 0 zbig attach "$db" /A --socket-only
refused 5 "in use" zbig attach "$db" /A --name A --socket-only
refused 2 "no file system is mounted" zbig commit A --freeze fs
refused 2 "none, fs or cgroup=PATH" zbig commit A --freeze cgroup
refused 2 "65535" zbig commit A -m "$(head -c 70000 /dev/zero | tr '\0' x)"

step "a locked database"
zbig create "$work/other.fs" /A --size 1M
python3 - "$work/other.fs.lock" << 'EOF' &
import fcntl, sys, time
lock = open(sys.argv[1], 'a+')  # as zc.lockfile does
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
open(sys.argv[1] + '.held', 'w').close()
time.sleep(60)
EOF
at_end "kill $! 2> /dev/null"
until_true 10 test -e "$work/other.fs.lock.held"
refused 5 "other.fs" zbig attach "$work/other.fs" /A --socket-only
holds "hint" "$err" "--read-only"
expect 0 zbig attach "$work/other.fs" /A --socket-only --read-only --name reader
expect 0 zbig detach reader

step "HTTP"
# http STATUS PART CURL-ARGUMENT...
http() {
    local status=$1 part=$2
    shift 2
    got=$(curl -s --unix-socket "$ZBIG_SOCKET" -w '\n%{http_code}' "$@" || true)
    same "status of $*" "${got##*$'\n'}" "$status"
    holds "answer to $*" "$got" "$part"
}
at=http://zbig/v1
http 200 '"pid"' "$at/agent"
http 404 "there is no GET /v1/nothing" "$at/nothing"
http 404 "there is no PUT" -X PUT "$at/devices"
http 400 "no JSON object" "$at/devices" -d '{"url"'
http 400 "no JSON object" "$at/devices" -d '[]'
http 400 "no JSON object" "$at/commit" -d "$(head -c 100000 /dev/zero | tr '\0' '[')"
http 400 'unknown field \"volumes\"' "$at/devices" \
    -d "{\"url\":\"$db\",\"volume\":\"/A\",\"volumes\":1}"
http 400 "url is missing" "$at/devices" -d '{}'
http 400 "a string is wanted" "$at/devices" -d '{"url":1}'
http 400 "true or false" "$at/devices" \
    -d "{\"url\":\"$db\",\"volume\":\"/A\",\"read_only\":\"yes\"}"
http 400 "whole number" "$at/devices" -d "{\"url\":\"$db\",\"volume\":\"/A\",\"size\":-1}"
http 400 "16 hex digits" "$at/devices" -d "{\"url\":\"$db\",\"volume\":\"/A\",\"at\":\"yesterday\"}"
http 400 "NUL" "$at/devices" -d '{"url":"/a\u0000b","volume":"/A"}'
http 400 "absolute path" "$at/devices" -d "{\"url\":\"$db\",\"volume\":\"/A\",\"fuse_path\":\"x\"}"
http 400 "list of names" "$at/commit" -d '{"devices":"A"}'
http 400 "list of names" "$at/commit" -d '{"devices":[]}'
http 400 "unknown parameter" -X DELETE "$at/devices/A?all"
http 400 "true or false" -X DELETE "$at/devices/A?discard=perhaps"
http 400 "bad %" "$at/devices/%zz"
http 400 "none, fs or cgroup=PATH" "$at/commit" -d '{"devices":["A"],"freeze":"all"}'
head -c 300000 /dev/zero | tr '\0' ' ' > "$work/long"
http 413 "256 KiB" "$at/commit" --data-binary "@$work/long"
printf 'nonsense\r\n\r\n' > "$work/nonsense"
got=$(python3 - "$ZBIG_SOCKET" "$work/nonsense" << 'EOF'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(open(sys.argv[2], 'rb').read())
print(s.recv(4096).decode())
EOF
)
holds "nonsense" "$got" "400 Bad Request"
same "the device is still there" "$(status_of A state)" clean
expect 0 zbig detach A
stop_agent
