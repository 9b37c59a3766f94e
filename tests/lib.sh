# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# Common to shell tests. A test sources it first; it has then
#   $ZBIG_BIN   the folder of the programs (CTest sets it)
#   $work       a folder of its own, gone afterwards
# and what follows. What has to be undone is queued with `at_end` before it is done.

set -euo pipefail

: "${ZBIG_BIN:?the folder of the built programs}"
PATH=$ZBIG_BIN:$PATH

work=$(mktemp -d "${TMPDIR:-/tmp}/zbt.XXXXXX")
undo=()

# at_end COMMAND: to be run when the test ends, the last one first.
at_end() { undo+=("$1"); }

run_undo() {
    local status=$? i
    set +e
    for ((i = ${#undo[@]} - 1; i >= 0; i--)); do eval "${undo[i]}"; done
    exit "$status"
}
trap run_undo EXIT
trap 'exit 1' INT TERM
# shellcheck disable=SC2016
at_end 'rm -rf "$work"'

skip() {
    printf 'SKIP: %s\n' "$*"
    exit 77
}
fail() {
    printf 'FAIL: %s\n' "$*" >&2
    exit 1
}
step() { printf -- '--- %s\n' "$*"; }

# need COMMAND...: skips the test where one is missing.
need() {
    local command
    for command; do
        command -v "$command" > /dev/null || skip "$command is not installed"
    done
}

# same WHAT GOT WANTED
same() { [ "$2" = "$3" ] || fail "$1: '$2', and not '$3'"; }
# holds WHAT TEXT PART: the text has the part in it.
holds() { [[ $2 == *"$3"* ]] || fail "$1: '$2' has no '$3' in it"; }

# expect STATUS COMMAND...: runs it, and leaves what it wrote in $out and $err.
expect() {
    local wanted=$1 got=0
    shift
    "$@" > "$work/out" 2> "$work/err" || got=$?
    out=$(< "$work/out")
    err=$(< "$work/err")
    [ "$got" = "$wanted" ] ||
        fail "'$1 ${2-} ${3-} ${4-}' ended with $got and not $wanted: ${out:0:500} ${err:0:500}"
}

# until_true SECONDS COMMAND...
until_true() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

# field KEY: the value of a key in the JSON on standard input, where it stands first.
field() {
    { grep -oE "\"$1\": ?(\"[^\"]*\"|[^,}]*)" || true; } |
        head -n 1 | sed -E 's/^"[^"]*": ?//; s/^"(.*)"$/\1/'
}
