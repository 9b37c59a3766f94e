# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash source=tests/agent/lib.sh
#
# For tests of devices whose database a real ZEO server keeps: `source zeo.sh ENVIRONMENT` starts
# one of that Python, with its files in $work/zeo. $plain is its URL, $python the Python beside it.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
need_fuse
need python3
here=$(cd "$(dirname "$0")" && pwd)
PEERS=${PEERS:-$here/../../.peers}
PEERS=$(readlink -f "$PEERS") || skip "no Python peers (./run deps sets them up)"
export PEERS PEER_ENV=$1
python=$PEERS/$PEER_ENV/bin/python
[ -x "$python" ] || skip "no Python peer $PEER_ENV in $PEERS (./run deps sets it up)"

# need_arrays: wendelin.core's C extension, without which Python cannot map an array.
need_arrays() {
    "$python" -W ignore -c 'import wendelin.bigfile._bigfile as m
assert m.__file__.endswith(".so")' 2> /dev/null ||
        skip "wendelin.core of $PEER_ENV has no C extension (Python 3.11 cannot build it)"
}

zeo() {
    "$here/../peers/zeo-server" "$1" "$work/zeo" > "$work/zeo.said" 2>&1 ||
        fail "zeo-server $1: $(cat "$work/zeo.said")"
}
zeo_pid() { cat "$work/zeo/zeo.pid"; }
zeo_ends() {
    [ -s "$work/zeo/zeo.pid" ] || return 0
    kill -CONT "$(zeo_pid)"
    "$here/../peers/zeo-server" stop "$work/zeo"
}
at_end zeo_ends
zeo start
# shellcheck disable=SC2034  # the test's
plain=$(cat "$work/zeo.said")

# start_talk NAME COMMAND...: a program that answers each line with a line.
# ask NAME WORD...: sets reply. end_talk NAME: it ends.
declare -A talk_in talk_out
start_talk() {
    local name=$1 in out
    shift
    mkfifo "$work/$name.in" "$work/$name.out"
    "$@" < "$work/$name.in" > "$work/$name.out" 2> "$work/$name.err" &
    exec {in}> "$work/$name.in" {out}< "$work/$name.out"
    talk_in[$name]=$in
    talk_out[$name]=$out
}
# shellcheck disable=SC2034
hear() {
    read -r -t 120 -u "${talk_out[$1]}" reply || fail "$1: no reply: $(tail -n 5 "$work/$1.err")"
}
ask() {
    echo "${*:2}" >&"${talk_in[$1]}"
    hear "$1"
}
end_talk() {
    local in=${talk_in[$1]}
    exec {in}>&-
}
