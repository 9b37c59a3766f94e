# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash source=tests/lib.sh
#
# For tests of the agent: one of its own, with its state in $work/state.

source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

need nbdkit nbdcopy
state=$work/state
export ZBIG_SOCKET=$work/run/zbigd.sock
agent=
agent_options=()

start_agent() {
    zbigd --foreground --state "$state" --socket "$ZBIG_SOCKET" "${agent_options[@]}" \
        2>> "$work/agent.log" &
    agent=$!
    until_true 30 agent_answers || fail "the agent does not answer: $(tail -n 3 "$work/agent.log")"
}
agent_answers() {
    kill -0 "$agent" 2> /dev/null || return 0
    zbig status > /dev/null 2>&1
}
stop_agent() {
    kill "$agent"
    wait "$agent" || fail "the agent ended with $?"
}
kill_agent() {
    kill -9 "$agent"
    wait "$agent" 2> /dev/null || true
}
# service_pids: of the servers and mounts of this agent, as their lock files tell.
service_pids() {
    local lock
    for lock in "$state"/servers/*/lock "$state"/devices/*/fuse.lock; do
        [ -s "$lock" ] || continue
        # Held by a program: it lives.
        flock --nonblock "$lock" true || cut -d ' ' -f 1 "$lock"
    done
}
server_pid() { cut -d ' ' -f 1 "$state"/servers/*/lock; }
no_agent_is_left() {
    local pid path mounts
    kill "$agent" 2> /dev/null && wait "$agent" 2> /dev/null
    # All of the table first: it changes under who reads it.
    mapfile -t mounts < <(grep -F " $work/" /proc/self/mountinfo | cut -d ' ' -f 5)
    for path in "${mounts[@]}"; do fusermount3 -uz "$path"; done
    for pid in $(service_pids); do kill -9 "$pid"; done
    return 0
}
at_end no_agent_is_left
# A test that failed shows what the agent said.
show_logs() {
    echo "agent.log:"
    tail -n 40 "$work/agent.log"
    tail -n 5 "$state"/servers/*/log "$state"/devices/*/fuse.log
}
# shellcheck disable=SC2016
at_end '[ "$status" = 0 ] || [ "$status" = 77 ] || show_logs 2> /dev/null'

# Tests of mapped devices run with each front end: as FUSE files on every machine, as /dev/nbdX in
# tests/vm. need_mapped skips the test where the one that $FRONT_END says cannot be had;
# attach_mapped DEVICE PATH OPTION...: attaches $db's volume /A, so that PATH is the device.
front_end=${FRONT_END:-fuse}
need_mapped() {
    [ "$front_end" = nbd ] || need_fuse
}
# shellcheck disable=SC2154  # db is the test's
attach_mapped() {
    local device=$1 path=$2
    shift 2
    if [ "$front_end" = nbd ]; then
        zbig attach "$db" /A --name "$device" --nbd "$@" > /dev/null || return
        ln -sfn "/dev/zbig/$device" "$path"
    else
        zbig attach "$db" /A --name "$device" --fuse "$path" "$@" > /dev/null
    fi
}

need_fuse() {
    need fusermount3
    [ -w /dev/fuse ] || skip "/dev/fuse is not there for this user"
}

# status_of DEVICE KEY
status_of() { zbig status "$1" --json | field "$2"; }
is_state() { [ "$(status_of "$1" state)" = "$2" ]; }
# pattern BYTES SEED: bytes that depend on the seed and differ everywhere.
pattern() {
    openssl enc -aes-128-ctr -nosalt -pass "pass:$2" -in /dev/zero 2> /dev/null |
        head -c "$1" || true
}
# write_at DEVICE OFFSET FILE: through NBD.
write_at() {
    local uri
    uri=$(status_of "$1" nbd)
    qemu-io -f raw -c "write -s $3 $2 $(stat -c %s "$3")" -c flush "$uri" > /dev/null ||
        fail "write to $1 at $2"
}
# read_uri URI [LENGTH]: the bytes of an export, all or the first LENGTH.
read_uri() {
    local file=$work/device.$BASHPID
    nbdcopy "$1" - > "$file" || fail "read $1"
    head -c "${2:-1E}" "$file"
    rm "$file"
}
# read_device DEVICE [LENGTH]: its bytes, through NBD.
read_device() { read_uri "$(status_of "$1" nbd)" "${@:2}"; }
