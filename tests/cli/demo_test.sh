#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The demo does what it tells, with a database of its own and with one that is given, and leaves
# nothing behind: no file, no process, no change of the content; also after Ctrl-C.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
demo=$here/../../examples/demo
zbig=$ZBIG_BIN/zbig
work=$(mktemp -d)
# What a failure left mounted goes first.
tidy_up() {
    awk -v at="$work/" 'index($2, at) == 1 { print $2 }' /proc/mounts | xargs -r -n1 fusermount3 -uz
    rm -rf "$work"
}
trap tidy_up EXIT
export TMPDIR=$work/tmp

fail() {
    echo "FAILED: $*" >&2
    exit 1
}
# Nothing is left in $TMPDIR, and no process that was started there.
nothing_left() {
    local left
    left=$(ls -A "$TMPDIR")
    [ -z "$left" ] || fail "$1: left behind: $left"
    left=$(pgrep -af "$TMPDIR" || true)
    [ -z "$left" ] || fail "$1: still running: $left"
}

mkdir "$TMPDIR"
"$demo" > "$work/own" 2>&1 || fail "the demo: $(cat "$work/own")"
grep -q 'All that is changed by C is kept in a ZODB' "$work/own" || fail "$(cat "$work/own")"
grep -q 'All that is changed by C is seen in a ZODB' "$work/own" || fail "$(cat "$work/own")"
nothing_left 'its own database'

"$zbig" create "$work/Data.fs" /a --size 10000 > /dev/null
head -c 10000 /dev/urandom > "$work/content"
"$zbig" import "$work/Data.fs" /a "$work/content" > /dev/null
"$demo" "$work/Data.fs" /a > "$work/given" 2>&1 || fail "the demo: $(cat "$work/given")"
"$zbig" export "$work/Data.fs" /a | cmp - "$work/content" || fail 'the content is another one'
log=$("$zbig" log "$work/Data.fs" /a)
[ "$(grep -c '^0' <<< "$log")" = 5 ] || fail "$log"
nothing_left 'a given database'

# Ctrl-C at some moments; job control gives the demo a process group, which gets the signal.
set -m
for delay in 0.2 0.5 0.8; do
    "$demo" > "$work/cut" 2>&1 &
    pid=$!
    sleep "$delay"
    kill -INT -- "-$pid" 2> /dev/null || true
    wait "$pid" || true
    nothing_left "Ctrl-C after $delay s"
done
echo passed
