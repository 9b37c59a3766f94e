#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Death of the server, the agent and both between two commands: nothing that was flushed is lost,
# devices come back by themselves, and commit and abort do afterwards what they should.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need qemu-io openssl python3

db=$work/Data.fs
zbig create "$db" /A --size 8M
pattern 65536 one > "$work/one"
pattern 65536 two > "$work/two"
start_agent
zbig attach "$db" /A --socket-only > /dev/null
uri=$(status_of A nbd)

step "the server dies: the agent starts another, dirty data are there"
write_at A 0 "$work/one"
old=$(server_pid)
kill -9 "$old"
until_true 10 is_state A dirty || fail "state $(status_of A state)"
until_true 10 eval '[ "$(server_pid)" != "$old" ]' || fail "the same server"
until_true 10 is_state A dirty || fail "state $(status_of A state)"
same "the node" "$(status_of A nbd)" "$uri"
read_uri "$uri" 65536 | cmp - "$work/one"
expect 0 zbig commit A
zbig export "$db" /A --length 65536 | cmp - "$work/one"

step "the agent dies: devices go on working, the next agent takes them over"
kill_agent
server=$(server_pid)
read_uri "$uri" 65536 | cmp - "$work/one"
qemu-io -f raw -c "write -s $work/two 0 65536" -c flush "$uri" > /dev/null
start_agent
same "the server" "$(server_pid)" "$server"
same "state" "$(status_of A state)" dirty
expect 0 zbig commit A
zbig export "$db" /A --length 65536 | cmp - "$work/two"

step "the agent is stopped and started: the same"
write_at A 65536 "$work/one"
stop_agent
start_agent
same "the server" "$(server_pid)" "$server"
same "state" "$(status_of A state)" dirty
expect 0 zbig abort A
zbig export "$db" /A --offset 65536 --length 65536 | cmp - <(head -c 65536 /dev/zero)

step "both die, as when the machine does"
write_at A 65536 "$work/one"
kill -9 "$server"
kill_agent
rm -rf "$work/run"
start_agent
until_true 10 is_state A dirty || fail "state $(status_of A state)"
expect 0 zbig commit A
zbig export "$db" /A --offset 65536 --length 65536 | cmp - "$work/one"

step "a frozen device of an agent that died is dirty again"
write_at A 131072 "$work/two"
control=$(echo "$work"/run/servers/*.control)
server=$(server_pid)
kill_agent
python3 - "$control" > "$work/reply" << 'EOF'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b'{"op": "freeze", "device": "A"}\n')
print(s.recv(4096).decode())
EOF
holds "freeze" "$(cat "$work/reply")" '"ok":true'
start_agent
same "the server" "$(server_pid)" "$server"
same "state" "$(status_of A state)" dirty
expect 0 zbig commit A
zbig export "$db" /A --offset 131072 --length 65536 | cmp - "$work/two"

step "an upgrade: programs at another place take over what runs, and replace what dies"
write_at A 262144 "$work/one"
server=$(server_pid)
stop_agent
mkdir "$work/new"
cp "$ZBIG_BIN"/{zbigd,zbig-fuse,nbdkit-zbig-plugin.so} "$work/new/"
old_path=$PATH
PATH=$work/new:$PATH
start_agent
same "the agent's program" "$(readlink "/proc/$agent/exe")" "$work/new/zbigd"
same "the server" "$(server_pid)" "$server"
same "state" "$(status_of A state)" dirty
kill -9 "$server"
until_true 10 eval '[ "$(server_pid)" != "$server" ]' || fail "the same server"
until_true 10 is_state A dirty || fail "state $(status_of A state)"
holds "the new server's plugin" "$(tr '\0' ' ' < "/proc/$(server_pid)/cmdline")" "$work/new/"
read_uri "$uri" 327680 | tail -c 65536 | cmp - "$work/one"
expect 0 zbig commit A
zbig export "$db" /A --offset 262144 --length 65536 | cmp - "$work/one"
stop_agent
PATH=$old_path
hash -r
start_agent

step "a second agent on the same state folder"
expect 5 zbigd --foreground --state "$state" --socket "$work/run/second.sock"
holds "the second agent" "$err" "another zbigd (process $agent)"
expect 5 zbigd --state "$state" --socket "$work/run/second.sock"
holds "the second agent in the background" "$err" "another zbigd (process $agent)"
mkdir "$work/state2"
expect 5 zbigd --foreground --state "$work/state2" --socket "$ZBIG_SOCKET"
holds "the same socket" "$err" "another program listens"

step "the database is taken by another program while the agent is away"
write_at A 0 "$work/one"
stop_agent
expect 0 zbig import "$db" /A "$work/two" --offset 4194304
start_agent
same "state" "$(status_of A state)" dirty
expect 0 zbig commit A
zbig export "$db" /A --length 65536 | cmp - "$work/one"
zbig export "$db" /A --offset 4194304 --length 65536 | cmp - "$work/two"

step "and changes the same block: a conflict, and after abort its data"
write_at A 0 "$work/two"
stop_agent
expect 0 zbig import "$db" /A "$work/two" --offset 65536
start_agent
expect 3 zbig commit A
expect 0 zbig abort A
read_device A 131072 | cmp - <(cat "$work/one" "$work/two")
expect 0 zbig detach A
stop_agent
