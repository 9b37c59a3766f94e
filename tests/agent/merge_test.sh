#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Two devices of one volume change the same block. The second commit is a conflict, told as text
# and as JSON, and changes nothing; with --merge it goes through, page by page, for both devices by
# turns; where both changed one page it stays a conflict, which names the page.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need qemu-io openssl python3

db=$work/Data.fs
zbig create "$db" /A --size 1M --block-size 64K
zbig create "$db" /B --size 1M --block-size 64K
pattern 1048576 before > "$work/model"
zbig import "$db" /A "$work/model" > /dev/null
start_agent
zbig attach "$db" /A --name one --socket-only > /dev/null
zbig attach "$db" /A --name two --socket-only > /dev/null
zbig attach "$db" /B --name b --socket-only > /dev/null

# page DEVICE NUMBER SEED: writes a page; keep NUMBER SEED: and it has to be there in the end.
page() {
    pattern 4096 "$3" > "$work/page"
    write_at "$1" $(($2 * 4096)) "$work/page"
}
keep() { pattern 4096 "$2" | dd of="$work/model" bs=4096 seek="$1" conv=notrunc status=none; }
# json EXPRESSION: of what is in $out, as `it`.
json() {
    python3 -c 'import json, sys; it = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1" \
        <<< "$out"
}

step "the second commit is a conflict, and tells with whom"
base=$(status_of two tid)
page one 16 first
page two 17 second
expect 0 zbig commit one -m "the first" --user eve
won=$out
keep 16 first
expect 3 zbig commit two
holds "the error" "$err" "block 1 of /A"
holds "the advice" "$err" "--merge"
for part in /A "$base" "$won" eve "the first"; do holds "the table" "$out" "$part"; done
expect 3 zbig commit two --json
same "the block" "$(json '[(b["volume"], b["block"], b["offset"]) for b in it["conflict"]]')" \
    "[('/A', 1, 65536)]"
keys='("base_tid", "tid", "user", "description")'
same "with whom" "$(json "list(map(it[\"conflict\"][0].get, $keys))")" \
    "['$base', '$won', 'eve', 'the first']"
same "state" "$(status_of two state)" dirty
same "newest transaction" "$(zbig log "$db" -n 1 --json | field tid)" "$won"

step "--merge takes the others' page"
expect 0 zbig commit two --merge --json
same "merged" "$(json 'it["blocks_merged"]')" 1
keep 17 second
zbig export "$db" /A | cmp - "$work/model"
read_device two 1048576 | cmp - "$work/model"
same "state" "$(status_of two state)" clean

step "by turns, and over two devices"
for round in 1 2 3; do
    page one 32 "one$round"
    page two 40 "two$round"
    page b "$round" "b$round"
    expect 0 zbig commit one --merge
    keep 32 "one$round"
    expect 0 zbig commit two b --merge
    keep 40 "two$round"
    zbig export "$db" /A | cmp - "$work/model"
    zbig export "$db" /B --offset $((round * 4096)) --length 4096 | cmp - <(pattern 4096 "b$round")
    page one 41 "one$round"
    page two 33 "two$round"
    expect 0 zbig commit two --merge
    keep 33 "two$round"
    expect 0 zbig commit one --merge
    keep 41 "one$round"
    zbig export "$db" /A | cmp - "$work/model"
done
for device in one two; do read_device "$device" 1048576 | cmp - "$work/model"; done

step "one page changed by both stays a conflict"
page one 3 one
page one 4 one
page two 4 two
page two 5 two
expect 0 zbig commit one
keep 3 one
keep 4 one
expect 3 zbig commit two --merge
holds "the page" "$out" "16384+4096"
expect 3 zbig commit two --merge --json
same "the page" "$(json '[(p["offset"], p["length"]) for p in it["conflict"][0]["pages"]]')" \
    "[(16384, 4096)]"
zbig export "$db" /A | cmp - "$work/model"
same "state" "$(status_of two state)" dirty
same "dirty" "$(status_of two dirty_bytes)" 8192
expect 0 zbig abort two

step "a page written as it was is not the writer's"
pattern 4096 one > "$work/page"
page one 4 newer
write_at two $((4 * 4096)) "$work/page"
expect 0 zbig commit one
keep 4 newer
expect 0 zbig commit two --merge
same "its commit" "$out" "nothing to commit"
read_device two 1048576 | cmp - "$work/model"
zbig export "$db" /A | cmp - "$work/model"

expect 0 zbig check "$db"
for device in one two b; do expect 0 zbig detach "$device"; done
stop_agent
