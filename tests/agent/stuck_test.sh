#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A device whose old pages cannot be dropped: the commit that made them old, other devices and later
# commits go on, the status does not call it settled and says why, and as soon as it can be, all
# that became old meanwhile is dropped.

# shellcheck disable=SC2016,SC2154 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need_fuse
need python3

db=$work/Data.fs
name=zbt$$
zbig create "$db" /A --size 4M --block-size 256K
head -c 4194304 /dev/zero | tr '\0' . > "$work/text"
zbig import "$db" /A "$work/text" > /dev/null
export REAL_ZBIG_FUSE=$ZBIG_BIN/zbig-fuse REFUSES_WHILE=$work/refuses
ZBIG_FUSE=$(realpath "$(dirname "$0")/../race/deaf_fuse.py")
export ZBIG_FUSE
agent_options=(--feed-grace 600)
start_agent
expect 0 zbig attach "$db" /A --name "$name-w" --socket-only
for device in a b r; do
    options=()
    [ $device != r ] || options=(--read-only)
    expect 0 zbig attach "$db" /A --name "$name-$device" --fuse "$work/$device" "${options[@]}"
done
# commit OFFSET TEXT: by another device; sets tid and took (seconds).
commit() {
    printf %s "$2" > "$work/news"
    write_at "$name-w" "$1" "$work/news"
    local begin=$SECONDS
    expect 0 zbig commit "$name-w"
    tid=$out
    took=$((SECONDS - begin))
}
# shows DEVICE OFFSET TEXT
shows() { [ "$(dd if="$work/$1" bs=1 skip="$2" count=${#3} status=none)" = "$3" ]; }
is_settled() { [ "$(status_of "$name-$1" settled)" = true ]; }
is_at() { is_settled "$1" && [ "$(status_of "$name-$1" tid)" = "$tid" ]; }
coproc MAPPING { exec held_mapping "$work/a"; }
mapping=$MAPPING_PID
ask() {
    echo "$*" >&"${MAPPING[1]}"
    read -r -t 20 reply <&"${MAPPING[0]}" || fail "$*: no reply"
}
ask read 4096 3
ask read 1048576 3
same "at first" "$reply" ...

step "the kernel's side refuses"
touch "$work/refuses"
commit 4096 one
sleep 1
for device in a b r; do
    ! is_settled $device || fail "$device is called settled: $(zbig status "$name-$device" --json)"
    [[ $(status_of "$name-$device" tid) < $tid ]] || fail "$device is said to be at $tid"
    holds "$device waits for" "$(status_of "$name-$device" waits_for)" "not today"
done
ask read 4096 3
same "the page is old" "$reply" ...
# The next move has nothing to do with that page.
rm "$work/refuses"
commit 1048576 two
for device in a b r; do
    until_true 15 is_at $device || fail "$device: $(zbig status "$name-$device" --json)"
    shows $device 4096 one || fail "$device is settled and shows an old page"
    shows $device 1048576 two || fail "$device shows an old page of the second commit"
    same "$device waits for" "$(status_of "$name-$device" waits_for)" ""
done
ask read 4096 3
same "mapped" "$reply" one

step "the processes of two devices are stopped: the others, and commits, go on"
stopped=$(pgrep -f "zbig-fuse.* $work/[ar]\$")
[ "$(wc -w <<< "$stopped")" -ge 2 ] || fail "these processes: $stopped"
# shellcheck disable=SC2086
kill -STOP $stopped
at_end 'kill -CONT $stopped 2> /dev/null'
commit 4096 abc
[ "$took" -le 15 ] || fail "the commit took $took s"
until_true 2 shows b 4096 abc || fail "b does not follow"
commit 4096 def
[ "$took" -le 12 ] || fail "the next commit took $took s"
until_true 8 shows b 4096 def || fail "b does not follow"
for device in a r; do
    ! is_at $device || fail "$device cannot have moved"
    [ -n "$(status_of "$name-$device" waits_for)" ] || fail "the status of $device says nothing"
done
# shellcheck disable=SC2086
kill -CONT $stopped
for device in a r; do
    until_true 60 is_at $device || fail "$device: $(zbig status "$name-$device" --json)"
    shows $device 4096 def || fail "$device is settled and shows an old page"
done
eval "exec ${MAPPING[1]}>&-"
wait "$mapping" || true
for device in a b r w; do expect 0 zbig detach "$name-$device"; done
stop_agent
