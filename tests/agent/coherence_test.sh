#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A program that keeps one mapping of a device sees what is committed through another device, what
# an abort brings back, and what a refresh brings; and what it wrote to an old page in the moment
# when the view moved does not undo what another committed.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need_mapped
need python3

db=$work/Data.fs
name=zbt$$
zbig create "$db" /A --size 8M --block-size 256K
yes 'what was there before' | tr '\n' '.' | head -c 8388608 > "$work/text" || true
zbig import "$db" /A "$work/text" > /dev/null
start_agent
expect 0 attach_mapped "$name" "$work/here"
expect 0 attach_mapped "$name-2" "$work/other"

coproc MAPPING { exec held_mapping "$work/here" 2> "$work/mapping.err"; }
mapping=$MAPPING_PID
# ask COMMAND: sets reply.
ask() {
    echo "$*" >&"${MAPPING[1]}"
    read -r -t 60 reply <&"${MAPPING[0]}" || fail "$*: no reply: $(cat "$work/mapping.err")"
}
# through_other OFFSET TEXT: commits TEXT through the other device.
through_other() {
    printf '%s' "$2" | dd of="$work/other" bs=1 seek="$1" conv=notrunc status=none
    zbig commit "$name-2" > "$work/tid" || fail "commit of the other device"
}

step "a commit through the other device appears in the mapping"
offset=3000000
for round in 1 2 3 4 5 6 7 8; do
    text=round$round-$RANDOM
    ask read "$offset" "${#text}"
    [ "$reply" != "$text" ] || fail "it is there before the commit"
    through_other "$offset" "$text"
    ask await "$offset" "$text" 10
    [ "$reply" != never ] || fail "round $round: the mapping is stale: $(zbig status "$name")"
    step "fresh $reply ms after the commit was acknowledged"
    ask read 5000000 16
    same "other bytes" "$reply" "$(tail -c +5000001 "$work/text" | head -c 16)"
    offset=$((offset + 4096 * round))
done
until_true 5 eval '[ "$(status_of "$name" tid)" = "$(cat "$work/tid")" ]' || fail "the view"
same "state" "$(status_of "$name" state)" clean

step "what the mapping wrote stays until commit; others' changes come with it"
ask write 100 mine
through_other 4000000 others
sleep 0.5
ask read 100 4
same "own bytes" "$reply" mine
ask await 4000000 others 0.3
same "a dirty device keeps its view" "$reply" never
expect 0 zbig commit "$name"
ask await 4000000 others 5
[ "$reply" != never ] || fail "others' changes do not come with the commit"
zbig export "$db" /A --offset 100 --length 4 | cmp - <(printf mine)
zbig export "$db" /A --offset 4000000 --length 6 | cmp - <(printf others)

step "abort shows at once"
ask write 100 gone
ask write 4500000 gone
through_other 4700000 newer
expect 0 zbig abort "$name"
ask read 100 4
same "after the abort" "$reply" mine
ask read 4700000 5
same "others' commit" "$reply" newer
same "state" "$(status_of "$name" state)" clean

step "refresh shows at once"
expect 0 zbig detach "$name-2"
expect 0 attach_mapped "$name-3" "$work/still" --follow manual
exec {still}< <(exec held_mapping "$work/still" < <(
    echo read 100 4
    until [ -e "$work/refreshed" ]; do sleep 0.02; done
    echo read 100 4
))
read -r -t 10 -u "$still" reply
same "before" "$reply" mine
ask write 100 next
expect 0 zbig commit "$name"
expect 0 zbig refresh "$name-3"
touch "$work/refreshed"
read -r -t 10 -u "$still" reply
same "after the refresh" "$reply" next
exec {still}<&-

step "a server that died is no excuse: the mapping stays, and goes on following"
kill -9 "$(server_pid)"
until_true 15 is_state "$name" clean || fail "state $(status_of "$name" state)"
expect 0 zbig refresh "$name-3"
expect 0 zbig detach "$name-3"
expect 0 attach_mapped "$name-2" "$work/other"
through_other 200 after-death
ask await 200 after-death 10
[ "$reply" != never ] || fail "the mapping is stale after the server's death"

step "nor is an agent that died between the move and the drop"
control=$(echo "$work"/run/servers/*.control)
expect 0 zbig detach "$name-2"
stop_agent
printf 'NEWS' > "$work/news"
expect 0 zbig import "$db" /A "$work/news" --offset 200
python3 - "$control" "$name" > "$work/reply" << 'END'
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(json.dumps({"op": "refresh", "device": sys.argv[2], "at": "head"}).encode() + b"\n")
print(s.recv(1 << 20).decode())
END
holds "refresh" "$(cat "$work/reply")" '"settled":false'
ask read 200 4
same "not dropped yet" "$reply" afte
# A program writes to the old page: that must not undo what another committed.
ask write 300 old
start_agent
expect 3 zbig commit "$name"
holds "conflict" "$err" "changed"
expect 0 zbig abort "$name"
ask read 200 4
same "after the abort" "$reply" NEWS
ask write 300 new
expect 0 zbig commit "$name"
zbig export "$db" /A --offset 200 --length 4 | cmp - "$work/news"

step "a mapped device is detached by force only"
expect 5 zbig detach "$name"
holds "detach" "$err" "open or mapped"
ask read 200 4
same "it is there still" "$reply" NEWS
begin=$SECONDS
expect 0 zbig detach "$name" --force
[ $((SECONDS - begin)) -le 10 ] || fail "it took $((SECONDS - begin)) s"
ask read 7000000 4
same "and what the program has mapped is gone" "$reply" lost
wait "$mapping" || true
[ ! -e "$work/here" ] || fail "the file is left"
same "mounts left" "$(grep -c " $work/" /proc/self/mountinfo)" 0
until_true 5 eval '[ -z "$(service_pids)" ]' || fail "processes are left: $(service_pids)"
stop_agent
