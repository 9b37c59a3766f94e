#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A user who is not root, with no agent yet: `zbig attach` starts one, in the user's own places, and
# devices are files of this user.

# shellcheck source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need_fuse
need setpriv openssl

# The checkout may be where the user cannot go.
chmod 755 "$work"
mkdir "$work/bin" "$work/home" "$work/run" "$work/data"
cp "$ZBIG_BIN"/{zbig,zbigd,zbig-fuse,nbdkit-zbig-plugin.so} "$work/bin"
uid=$(id -u)
become=(env)
if [ "$uid" = 0 ]; then
    uid=65534
    become=(setpriv --reuid "$uid" --regid "$uid" --clear-groups env)
    chown "$uid:$uid" "$work"/{home,run,data}
fi
unset ZBIG_SOCKET
# user COMMAND...: as that user, after a login.
user() {
    "${become[@]}" -i PATH="$work/bin:/usr/bin:/bin" HOME="$work/home" XDG_RUNTIME_DIR="$work/run" \
        "$@"
}
state=$work/home/.local/state/zbig # where lib.sh finds servers and mounts to stop
agent_pid() { cut -d ' ' -f 1 "$state/lock"; }
# shellcheck disable=SC2317
stop_the_users_agent() {
    kill "$(agent_pid)" && until_true 10 eval '! user zbig status > /dev/null 2>&1'
}
agent=
db=$work/data/Data.fs
user zbig create "$db" /A --size 4M
user zbig create "$db" /B --size 4M
pattern 65536 one > "$work/one"

step "no agent: only attach starts one"
expect 6 user zbig status
holds "status" "$err" "no agent at $work/run/zbig/zbigd.sock"

step "two attaches at once: one agent"
user zbig attach "$db" /A > "$work/A" 2> "$work/A.err" &
first=$!
expect 0 user zbig attach "$db" /B
at_end stop_the_users_agent
B=$out
wait "$first" || fail "the first attach: $(< "$work/A.err")"
A=$(< "$work/A")
holds "what they said" "$err$(< "$work/A.err")" "starting $work/bin/zbigd"
same "whose agent" "$(stat -c %u "/proc/$(agent_pid)")" "$uid"
expect 0 user zbig status --json
holds "status" "$out" '"A"'
holds "status" "$out" '"B"'
same "where A is" "$A" "$work/run/zbig/dev/A"

step "the files are the user's, and only theirs"
same "the owner" "$(user stat -c %u "$A")" "$uid"
user dd if="$work/one" of="$A" bs=64K seek=1 conv=notrunc,fsync status=none
user dd if="$work/one" of="$B" bs=64K seek=2 conv=notrunc,fsync status=none
expect 0 user zbig commit A B
expect 0 user zbig export "$db" /A --offset 64K --length 64K --output "$work/data/out"
cmp "$work/data/out" "$work/one"
expect 0 user zbig export "$db" /B --offset 128K --length 64K --output "$work/data/out"
cmp "$work/data/out" "$work/one"
if [ "$(id -u)" = 0 ]; then
    chmod 755 "$work/run" "$work/run/zbig" "$work/run/zbig/dev"
    expect 1 setpriv --reuid 65533 --regid 65533 --clear-groups cat "$A"
    expect 6 setpriv --reuid 65533 --regid 65533 --clear-groups \
        "$work/bin/zbig" status --socket "$work/run/zbig/zbigd.sock"
    expect 0 "$work/bin/zbig" status --socket "$work/run/zbig/zbigd.sock" # root may
fi

step "the agent runs: the next attach takes that one"
agent_before=$(agent_pid)
expect 0 user zbig detach A
expect 0 user zbig attach "$db" /A
same "what it said" "$err" ""
same "the agent" "$(agent_pid)" "$agent_before"
expect 0 user zbig detach A
expect 0 user zbig detach B
[ ! -e "$A" ] || fail "the mount point is left"
