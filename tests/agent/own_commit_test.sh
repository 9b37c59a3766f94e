#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The server dies between the moment when a transaction is durable and the moment when it hears of
# it. What the device committed itself is no conflict at its next commit, also where it was
# written again in between; what another client committed is one.
#
# To have the commit at that moment, the file that it writes to when its transaction is voted is a
# pipe here, which it waits at.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need qemu-io openssl

db=$work/Data.fs
zbig create "$db" /A --size 1M --block-size 64K
start_agent
zbig attach "$db" /A --socket-only > /dev/null
voted=$state/devices/A/voted
pattern 65536 first > "$work/first"
pattern 65536 second > "$work/second"
pattern 4096 page > "$work/page"

# commit_unheard: a commit of which the server does not hear.
: > "$work/voted"
commit_unheard() {
    local tid size
    size=$(stat -c %s "$db")
    rm -f "$voted"
    mkfifo "$voted"
    zbig commit A > "$work/commit" 2>&1 &
    local commit=$!
    # It reads what was voted before, then comes to write. What it stores of the one block that is
    # dirty, it has read from the server.
    cat "$work/voted" > "$voted"
    until_true 20 eval '[ "$(stat -c %s "$db")" -gt '"$size"' ]' || fail "nothing is stored"
    kill -9 "$(server_pid)"
    exec 3< "$voted"
    tid=$(tail -n 1 <&3)
    exec 3<&-
    echo "$tid" >> "$work/voted"
    rm "$voted"
    cp "$work/voted" "$voted"
    wait "$commit" || fail "the commit: $(cat "$work/commit")"
    until_true 20 is_state A dirty || fail "state $(status_of A state)"
}

step "written again after a commit that the server did not hear of"
write_at A 0 "$work/first"
commit_unheard
write_at A 0 "$work/second"
commit_unheard
zbig export "$db" /A --length 65536 | cmp - "$work/second"
write_at A 65536 "$work/first"
expect 0 zbig commit A
same "state" "$(status_of A state)" clean
{ cat "$work/second" "$work/first"; head -c 917504 /dev/zero; } > "$work/model"
zbig export "$db" /A | cmp - "$work/model"

step "a transaction that was voted and is not there changes nothing"
write_at A 0 "$work/first"
echo "7fffffffffffff00" > "$voted"
expect 0 zbig commit A

step "what another client committed later is a conflict in its blocks, and only there"
: > "$work/voted"
zbig attach "$db" /A --name B --socket-only > /dev/null
write_at A 0 "$work/second"
commit_unheard
write_at B 65536 "$work/second"
expect 0 zbig commit B
write_at A 0 "$work/first"
expect 0 zbig commit A
: > "$work/voted"
write_at A 0 "$work/second"
commit_unheard
write_at B 65536 "$work/first"
expect 0 zbig commit B
write_at A 69632 "$work/page"
expect 3 zbig commit A
holds "the error" "$err" "block 1 of /A"
expect 0 zbig abort A

expect 0 zbig check "$db"
expect 0 zbig detach A
expect 0 zbig detach B
stop_agent
