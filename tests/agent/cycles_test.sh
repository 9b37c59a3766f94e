#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# 200 cycles of attach and detach leave nothing behind: no descriptor, process, thread, mount, file.
# $CYCLES for another number.

# shellcheck disable=SC2016 source=tests/agent/lib.sh
source "$(dirname "$0")/lib.sh"

cycles=${CYCLES:-200}
db=$work/Data.fs
zbig create "$db" /A --size 1M
zbig create "$db" /B --size 1M
start_agent
fuse=()
[ -w /dev/fuse ] && command -v fusermount3 > /dev/null && fuse=(--fuse "$work/file")

traces() {
    echo "descriptors $(find "/proc/$agent/fd" -mindepth 1 | wc -l)"
    echo "threads $(find "/proc/$agent/task" -mindepth 1 -maxdepth 1 | wc -l)"
    echo "children $(wc -w < "/proc/$agent/task/$agent/children")"
    echo "services $(service_pids | wc -l)"
    echo "mounts $(grep -c " $work/" /proc/self/mountinfo)"
    find "$state" "$work/run" | sort
}
cycle() {
    zbig attach "$db" /A --socket-only > /dev/null
    if [ $((i % 4)) = 0 ] && [ ${#fuse[@]} -gt 0 ]; then
        zbig attach "$db" /B --name "zbt$$" "${fuse[@]}" > /dev/null
        head -c 100 /dev/urandom | dd of="$work/file" conv=notrunc status=none
        zbig commit A "zbt$$" > /dev/null
        zbig detach "zbt$$"
    fi
    zbig detach A
}
for ((i = 0; i < 4; i++)); do cycle; done
sleep 1
traces > "$work/before"
for ((i = 0; i < cycles; i++)); do cycle; done
sleep 1
traces > "$work/after"
diff "$work/before" "$work/after" || fail "something was left"
memory=$(sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$agent/status")
step "memory of the agent at most: $memory KiB"
[ "$memory" -lt 65536 ] || fail "the agent took $memory KiB"
stop_agent
