#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# A legacy program in C maps the device and changes random bytes; `zbig commit`, without an
# msync of the program; the database must hold what the same program makes of a plain file.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need_mapped

db=$work/Data.fs
name=zbt$$
zbig create "$db" /A --size 10M
start_agent
truncate -s 10M "$work/model"
for format in ZBlk0 ZBlk1 auto; do
    for ending in none msync fsync; do
        step "$format, $ending"
        attach_mapped "$name" "$work/file" --format "$format"
        for round in 1 2 3; do
            seed=$((RANDOM * 32768 + RANDOM))
            byte_writer change "$work/file" "$seed" "$((round * round * 30))" "$ending"
            byte_writer change "$work/model" "$seed" "$((round * round * 30))"
            cmp "$work/file" "$work/model"
            expect 0 zbig commit "$name" -m "$format $seed"
            [[ $out =~ ^[0-9a-f]{16}$ ]] || fail "commit printed '$out' (seed $seed)"
            same "state" "$(status_of "$name" state)" clean
            zbig export "$db" /A | cmp - "$work/model" || fail "seed $seed"
        done
        expect 0 zbig commit "$name"
        same "commit" "$out" "nothing to commit"
        expect 0 zbig detach "$name"
    done
done
expect 0 zbig check "$db"
stop_agent
