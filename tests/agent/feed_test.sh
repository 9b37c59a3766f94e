#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A database that cannot be followed any more: moved away, cut off, replaced. Devices that follow it
# stop to show what may be the past, mapped pages included; the others stay as they are, no write is
# lost, and all goes on by itself when the database is back.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need_fuse

db=$work/Data.fs
away=$work/away/Data.fs
mkdir "$work/away"
name=zbt$$
zbig create "$db" /A --size 8M --block-size 256K
yes 'what was there before' | tr '\n' '.' | head -c 8388608 > "$work/text" || true
zbig import "$db" /A "$work/text" > "$work/first"
agent_options=(--feed-grace 2)
start_agent

# news DB TEXT: commits TEXT at the offset where all look.
news() {
    printf '%s' "$2" > "$work/news"
    zbig import "$1" /A "$work/news" --offset 3000000 > /dev/null || fail "import $2"
}
# reads FILE TEXT: there it is, read through the page cache.
reads() { [ "$(dd if="$1" bs=1 skip=3000000 count="${#2}" status=none 2> "$work/err")" = "$2" ]; }
# fails FILE [OFFSET]
fails() {
    ! dd if="$1" of=/dev/null bs=4096 skip=$((${2:-3000000} / 4096)) count=1 2> "$work/err" &&
        grep -q "Input/output error" "$work/err"
}
is_lost() { is_state "$1" stale && [ "$(status_of "$1" feed)" = lost ]; }
follows() { is_state "$1" clean && [ "$(status_of "$1" feed)" = following ]; }
becomes_lost() {
    until_true 15 is_lost "$1" || fail "$2: $(zbig status "$1")"
    fails "$work/$1" || fail "$2: bytes are read: $(cat "$work/err")"
    fails "$work/$1" 5000000 || fail "$2: other bytes are read: $(cat "$work/err")"
    ! nbdcopy "$(status_of "$1" nbd)" - > /dev/null 2>&1 || fail "$2: NBD reads"
}

expect 0 zbig attach "$db" /A --name "$name" --fuse "$work/$name" --read-only
expect 0 zbig attach "$db" /A --name "$name-m" --fuse "$work/$name-m" --read-only --follow manual
expect 0 zbig attach "$db" /A --name "$name-p" --fuse "$work/$name-p" --at "$(cat "$work/first")"
was=$(dd if="$work/text" bs=1 skip=3000000 count=8 status=none)

step "all is well: only the one that follows moves"
news "$db" one
until_true 5 reads "$work/$name" one || fail "it does not follow: $(zbig status "$name")"
for other in m p; do reads "$work/$name-$other" "$was" || fail "$other moved"; done

step "the database is moved away"
mv "$db" "$away"
sleep 1
reads "$work/$name" one || fail "no grace: $(cat "$work/err")"
becomes_lost "$name" "moved away"
holds "status" "$(status_of "$name" waits_for)" "is not there any more"
for ((i = 0; i < 300; i++)); do fails "$work/$name" || fail "a read succeeds"; done
lines=$(wc -l < "$(echo "$state"/servers/*/log)")
[ "$lines" -lt 150 ] || fail "reads that fail fill the log: $lines lines"
for other in m p; do
    reads "$work/$name-$other" "$was" || fail "$other: $(cat "$work/err")"
    cmp "$work/$name-$other" "$work/text" || fail "$other: not its view"
    follows "$name-$other" && fail "$other follows"
    is_state "$name-$other" clean || fail "$other: $(zbig status "$name-$other")"
done
same "feed" "$(status_of "$name-m" feed) $(status_of "$name-p" feed)" "manual pinned"

step "an agent that comes anew does not make it readable"
kill_agent
fails "$work/$name" || fail "bytes are read without an agent"
start_agent
sleep 1
fails "$work/$name" || fail "bytes are read with a new agent"
is_lost "$name" || fail "$(zbig status "$name")"

step "it is back, with what was committed meanwhile"
news "$away" two
mv "$away" "$db"
until_true 10 reads "$work/$name" two || fail "it does not follow: $(zbig status "$name")"
until_true 5 follows "$name" || fail "$(zbig status "$name")"
zbig export "$db" /A | cmp - "$work/$name"
for other in m p; do reads "$work/$name-$other" "$was" || fail "$other moved"; done

step "it is cut off in the middle of a history that is known"
cp "$db" "$work/whole"
truncate -s -200000 "$db"
becomes_lost "$name" "cut off"
holds "status" "$(status_of "$name" waits_for)" "committed transactions were cut off"
cat "$work/whole" > "$db"
until_true 10 reads "$work/$name" two || fail "it does not follow: $(zbig status "$name")"

step "it is replaced by an older copy, and by what is no database"
news "$db" new
until_true 5 reads "$work/$name" new || fail "it does not follow: $(zbig status "$name")"
mv "$db" "$away"
cp "$work/whole" "$db"
becomes_lost "$name" replaced
holds "status" "$(status_of "$name" waits_for)" "does not continue it"
date > "$db.new" && mv "$db.new" "$db"
sleep 2
becomes_lost "$name" "replaced by a text"
mv "$away" "$db"
rm -f "$db.index"
news "$db" three
until_true 10 reads "$work/$name" three || fail "it does not follow: $(zbig status "$name")"
until_true 5 follows "$name" || fail "$(zbig status "$name")"
expect 0 zbig refresh "$name-m"
reads "$work/$name-m" three || fail "the refresh of $name-m"
expect 2 zbig refresh "$name-p"
holds "refresh of a pinned one" "$err" "without --at"

step "mapped pages go; uncommitted writes stay, and are read and committed"
expect 0 zbig attach "$db" /A --name "$name-w" --fuse "$work/$name-w"
expect 0 zbig attach "$db" /A --name "$name-d" --fuse "$work/$name-d"
coproc MAPPING { exec held_mapping "$work/$name-w" 2> "$work/mapping.err"; }
mapping=$MAPPING_PID
exec {dirty}< <(exec held_mapping "$work/$name-d" < <(
    echo write 3000000 mine
    until [ -e "$work/now" ]; do sleep 0.05; done
    echo read 3000000 4
    echo read 100 8
    echo write 5000000 more
    while [ -d "$work" ]; do sleep 0.1; done
))
read -r -t 10 -u "$dirty" reply
same "write" "$reply" written
echo "read 3000000 5" >&"${MAPPING[1]}"
read -r -t 10 reply <&"${MAPPING[0]}"
same "mapped" "$reply" three
mv "$db" "$away"
becomes_lost "$name-w" "a writable device"
echo "read 3000000 5" >&"${MAPPING[1]}"
read -r -t 10 reply <&"${MAPPING[0]}"
same "mapped bytes" "$reply" lost
wait "$mapping" || true
is_state "$name-d" dirty || fail "$(zbig status "$name-d")"
same "feed of the dirty one" "$(status_of "$name-d" feed)" lost
touch "$work/now"
read -r -t 10 -u "$dirty" reply
same "its own bytes" "$reply" mine
read -r -t 10 -u "$dirty" reply
same "bytes below" "$reply" "$(dd if="$work/text" bs=1 skip=100 count=8 status=none)"
read -r -t 10 -u "$dirty" reply
same "another write" "$reply" written
mv "$away" "$db"
until_true 10 follows "$name-w" || fail "$(zbig status "$name-w")"
reads "$work/$name-w" three || fail "after it came back: $(cat "$work/err")"
expect 0 zbig commit "$name-d"
for device in "$name" "$name-w" "$name-d"; do
    until_true 5 reads "$work/$device" mine || fail "$device: $(zbig status "$device")"
done
zbig export "$db" /A --offset 5000000 --length 4 | cmp - <(printf more)
stop_agent
