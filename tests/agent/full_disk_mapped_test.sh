#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The disk that keeps uncommitted writes is full, and a program writes to mapped pages: it waits in
# msync, with a line in the log and in the status, and nothing is lost once there is room; or msync
# tells it, where that was asked for.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need python3 openssl
need_mapped

db=$work/Data.fs
zbig create "$db" /A --size 8M > /dev/null
pattern 4194304 mapped > "$work/model"
mkdir "$state"
mount -t tmpfs -o size=3M none "$state" 2> /dev/null || skip "no small tmpfs can be mounted here"
at_end 'umount -l "$state"'
start_agent
id=full$$

# By a program that maps the device: all of the model, then msync. Says what became of it.
write_mapped() {
    python3 - "$work/file" "$work/model" << 'PYTHON'
import mmap, os, sys
model = open(sys.argv[2], "rb").read()
with open(sys.argv[1], "r+b") as f, mmap.mmap(f.fileno(), 8 << 20) as device:
    device[:len(model)] = model
    try:
        device.flush()
        print("written")
    except OSError as error:
        print("told", os.strerror(error.errno))
PYTHON
}
waits() { [[ "$(status_of "$id" waits_for)" == "room for what is not committed"* ]]; }

step "the writer waits, and goes on when there is room"
attach_mapped "$id" "$work/file"
write_mapped > "$work/said" &
writer=$!
until_true 60 waits || fail "it does not wait: $(zbig status "$id"); $(cat "$work/said")"
until_true 10 grep -q "device $id: writers wait for room" "$work/agent.log" || fail "the log"
step "a commit says why it cannot begin, and stops nothing"
expect 1 zbig commit "$id"
holds "commit" "$err" "No space left"
kill -0 "$writer" || fail "the writer ended: $(cat "$work/said")"
mount -o remount,size=32M "$state"
wait "$writer" || fail "the writer failed"
same "the writer" "$(cat "$work/said")" written
until_true 10 grep -q "device $id: there is room again" "$work/agent.log" || fail "the log"
same "waits for" "$(status_of "$id" waits_for)" ""
expect 0 zbig commit "$id"
zbig export "$db" /A --length 4194304 | cmp - "$work/model" || fail "something is lost"
expect 0 zbig detach "$id"

step "with --on-full error the program is told"
mount -o remount,size=3M "$state" 2> /dev/null || skip "tmpfs cannot be made small again"
pattern 4194304 told > "$work/model"
attach_mapped "$id" "$work/file" --on-full error
write_mapped > "$work/said"
[[ "$(cat "$work/said")" == told* ]] || fail "the writer: $(cat "$work/said")"
step "it was: $(cat "$work/said")"
mount -o remount,size=32M "$state"
expect 0 zbig abort "$id"
head -c 4194304 "$work/file" | cmp - <(pattern 4194304 mapped) || fail "after the abort"
write_mapped > "$work/said"
same "with room" "$(cat "$work/said")" written
expect 0 zbig commit "$id"
zbig export "$db" /A --length 4194304 | cmp - "$work/model" || fail "something is lost"
expect 0 zbig detach "$id"
stop_agent
