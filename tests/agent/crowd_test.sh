#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# Many programs ask one agent for everything at once: attach, write, commit, abort, refresh, detach
# of the same three devices, $SECONDS_TO_RUN seconds long. Whoever comes too late is told so
# (conflict, not found, busy) and nothing else goes wrong; the database is whole afterwards.

# shellcheck source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"
need qemu-io

seconds=${SECONDS_TO_RUN:-10}
people=5
db=$work/Data.fs
for volume in A B C; do zbig create "$db" "/$volume" --size 4M; done
start_agent

# attempt VERB...: fails the test if it ends in another way than done, or too late.
attempt() {
    local got=0
    timeout 60 zbig "$@" > "$work/said.$me" 2>&1 || got=$?
    case $got in
        0 | 3 | 4 | 5) echo "${1} $got" >> "$work/counts.$me" ;;
        *)
            echo "zbig $* ended with $got: $(< "$work/said.$me")" >> "$work/wrong"
            return 1
            ;;
    esac
    [ "$got" = 0 ]
}
write_somewhere() {
    local uri
    uri=$(zbig status "$1" --json 2> /dev/null | field nbd) || return 0
    [ -n "$uri" ] || return 0
    # The device may be detached at any moment.
    qemu-io -f raw -c "write -P $((RANDOM % 256)) $((RANDOM % 1024 * 4))k 4k" "$uri" \
        > /dev/null 2>&1 || true
}
person() {
    local me=$1 volumes=(A B C) volume other
    RANDOM=$me
    while [ "$SECONDS" -lt "$deadline" ] && [ ! -e "$work/wrong" ]; do
        volume=${volumes[RANDOM % 3]}
        other=${volumes[RANDOM % 3]}
        case $((RANDOM % 10)) in
            0 | 1) attempt attach "$db" "/$volume" --name "$volume" --socket-only ;;
            2 | 3) write_somewhere "$volume" ;;
            4) attempt commit "$volume" ;;
            5) if [ "$volume" != "$other" ]; then attempt commit "$volume" "$other"; fi ;;
            6) attempt abort "$volume" ;;
            7) attempt refresh "$volume" ;;
            8) attempt detach "$volume" ;;
            9) attempt status ;;
        esac || true
    done
}

deadline=$((SECONDS + seconds))
crowd=()
for ((i = 1; i <= people; i++)); do
    person "$i" &
    crowd+=($!)
done
for pid in "${crowd[@]}"; do wait "$pid" || fail "a person ended with $?"; done
[ ! -e "$work/wrong" ] || fail "$(< "$work/wrong")"
kill -0 "$agent" || fail "the agent is gone"
sort "$work"/counts.* | uniq -c
for verb in attach commit detach; do
    grep -qx "$verb 0" "$work"/counts.* || fail "no $verb ever succeeded: nothing was tested"
done

step "all that is left goes away, and the database is whole"
for device in A B C; do
    got=0
    zbig detach "$device" --discard > /dev/null 2>&1 || got=$?
    [ "$got" = 0 ] || [ "$got" = 4 ] || fail "detach $device ended with $got"
done
same "devices left" "$(zbig status --json | grep -c '"volume"' || true)" 0
expect 0 zbig check "$db"
stop_agent
