#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# kill -9 of the server, of the agent, and of both, at random moments, while programs write and
# check what they wrote, and commits go on: no error reaches a program, nothing that was flushed is
# lost, nothing is torn, the node stays, and in the end the database holds what the programs say.
#
#   [KILLS=100] [SEED=N] crash_test.sh SCENE
#
#   clients   NBD clients of the server itself, which connect again (tests/agent/crash_writer.cc)
#   programs  on the device as a file, or as /dev/nbdX (FRONT_END=nbd): by mappings, by read(2) and
#             write(2), by O_DIRECT. They notice nothing. Another device commits as well, and those
#             who read it on a third one see a page that is not stale, whichever way they read
#   ext4      the same on files of an ext4 that is mounted from /dev/nbdX, or from a loop device
#             on a file (FRONT_END=fuse); needs root
#
# A hundred kills by hand: `KILLS=100 ZBIG_BIN=build/bin bash tests/agent/crash_test.sh programs`
# (a minute or two); on /dev/nbdX in the virtual machine
#
#   tests/vm/boot -t 1800 -- env KILLS=100 FRONT_END=nbd ZBIG_BIN=$PWD/build/bin \
#       bash tests/agent/crash_test.sh ext4

# shellcheck disable=SC2016,SC2154 source=tests/agent/drill.sh
source "$(dirname "$0")/drill.sh"

scene=${1?clients, programs or ext4}
db=$work/Data.fs
name=zbt$$
mib=1048576

clean_or_dirty() { is_state "$name" dirty || is_state "$name" clean; }
# All that died is back; then nobody has forgotten the device.
come_back() {
    until_true 30 clean_or_dirty || fail "state $(status_of "$name" state)"
}
quiet_commit() { zbig commit "$name" "$@" > /dev/null 2>&1 || true; }
the_end() {
    expect 0 zbig check "$db"
    stop_agent
    step "$(kills_told)"
}

# --- clients

clients() {
    local uri model=$work/model
    zbig create "$db" /A --size 16M --block-size 256K > /dev/null
    start_agent
    zbig attach "$db" /A --name "$name" --socket-only --format "${FORMAT:-ZBlk1}" > /dev/null
    uri=$(status_of "$name" nbd)
    background crash_writer "$uri" "$SEED" "$model"
    drill quiet_commit
    end_programs
    come_back
    read_device "$name" | cmp - "$model"
    expect 0 zbig commit "$name"
    same "state" "$(status_of "$name" state)" clean
    zbig export "$db" /A | cmp - "$model"
    expect 0 zbig detach "$name"
}

# --- programs

count_at=$((4 * mib - 8))
# Commits the device, and, through another one, a count in the last 8 bytes.
count=10000000
commit_both() {
    local tid
    quiet_commit
    [ ! -e "$work/count" ] || count=$(< "$work/count")
    count=$((count + 1))
    printf %s $count > "$work/count"
    write_at "$name-2" "$count_at" "$work/count" > /dev/null 2>&1 || return 0
    tid=$(zbig commit "$name-2" 2> /dev/null) || return 0
    echo "$count $tid" > "$work/counted.new"
    mv "$work/counted.new" "$work/counted"
}
# count_by WAY: sets shown.
count_by() {
    local options=()
    case $1 in
        mapped)
            echo "read $count_at 8" >&"${MAPPING[1]}"
            read -r -t 60 shown <&"${MAPPING[0]}" || fail "mapped: $(cat "$work/mapping.err")"
            return
            ;;
        direct) options=(iflag=direct) ;;
    esac
    shown=$(dd if="$work/third" bs=4096 skip=$((count_at / 4096)) count=1 status=none \
        "${options[@]}" | tail -c 8) || fail "read $1"
}
is_at() { [[ ! $(status_of "$name-3" tid) < $1 ]]; }
seen=0
# Once the status of the third device says that it has reached a transaction, what was committed by
# it is there, and stays there.
nothing_stale() {
    local counted=0 tid way
    [ ! -e "$work/counted" ] || read -r counted tid < "$work/counted"
    [ "$counted" -gt 0 ] || return 0
    until_true 30 is_at "$tid" || fail "it does not follow to $tid: $(zbig status "$name-3")"
    for way in mapped plain direct; do
        count_by $way
        if [ "$shown" -lt "$counted" ] || [ "$shown" -lt "$seen" ]; then
            fail "$way: count $shown, after $seen was seen and $counted committed by $tid"
        fi
        seen=$shown
    done
}

programs() {
    need_mapped
    local node way ways end=$((4 * mib)) size=$((mib))
    zbig create "$db" /A --size "$end" --block-size 256K > /dev/null
    start_agent
    attach_mapped "$name" "$work/here" --format "${FORMAT:-ZBlk1}"
    zbig attach "$db" /A --name "$name-2" --socket-only --format ZBlk0 > /dev/null
    attach_mapped "$name-3" "$work/third"
    node=$(status_of "$name" node)
    local begin=0
    for ways in mapped direct "mapped plain direct"; do
        # shellcheck disable=SC2086
        background byte_writer verify "$work/here" $begin $size "$SEED" "$work/model$begin" $ways
        begin=$((begin + size))
    done
    coproc MAPPING { exec held_mapping "$work/third" 2> "$work/mapping.err"; }
    local mapping=$MAPPING_PID
    between_kills() { nothing_stale; }
    drill commit_both
    end_programs
    come_back
    nothing_stale
    step "the other device counted $((seen - 10000000)) commits"
    same "the node" "$(status_of "$name" node)" "$node"
    cat "$work"/model{0,$mib,$((2 * mib))} > "$work/model"
    cmp -n $((3 * mib)) "$work/here" "$work/model"
    expect 0 zbig commit "$name"
    same "state" "$(status_of "$name" state)" clean
    zbig export "$db" /A --length $((3 * mib)) | cmp - "$work/model"
    tail -c 8 "$work/here" | cmp - <(zbig export "$db" /A --offset "$count_at")
    eval "exec ${MAPPING[1]}>&-"
    wait "$mapping" || true
    expect 0 zbig detach "$name"
    expect 0 zbig detach "$name-2" --discard
    expect 0 zbig detach "$name-3"
}

# --- ext4

# It makes and removes for ever; what it has synced is there when it looks again.
make_and_remove() {
    local i told_to_end=0
    trap 'told_to_end=1' TERM
    for ((i = 0; ! told_to_end; i++)); do
        mkdir "$work/mount/folder$i"
        head -c $((i * 9973 % 50000)) "$work/text" > "$work/mount/new"
        sync "$work/mount/new"
        mv "$work/mount/new" "$work/mount/folder$i/file"
        [ "$i" -lt 5 ] || rm -r "$work/mount/folder$((i - 5))"
        [ "$i" -lt 3 ] ||
            cmp "$work/mount/folder$((i - 3))/file" \
                <(head -c $(((i - 3) * 9973 % 50000)) "$work/text") || return
    done
    echo "$i files"
}
commit_mounted() {
    local how=(none fs)
    quiet_commit --freeze "${how[RANDOM % 2]}"
}
# complaints NODE: the kernel's, of this block device.
complaints() { dmesg | grep -w "$(basename "$1")" | grep -Ei 'error|warning|abort' || true; }
# holds_files TID: a state of the volume that needs no repair, and has the files.
holds_files() {
    zbig export "$db" /A --at "$1" -o "$work/image"
    e2fsck -fn "$work/image" > "$work/fsck" 2>&1 || fail "$1: $(< "$work/fsck")"
    mount -o ro,loop "$work/image" "$work/copy"
    cmp "$work/copy/mapped" "$work/model-mapped"
    cmp "$work/copy/direct" "$work/model-direct"
    umount "$work/copy"
    rm "$work/image"
}

ext4() {
    need_mapped
    need mkfs.ext4 e2fsck losetup
    [ "$(id -u)" = 0 ] || skip "only root can mount"
    local disk node way before
    zbig create "$db" /A --size 32M --block-size 256K > /dev/null
    start_agent
    attach_mapped "$name" "$work/here"
    node=$(status_of "$name" node)
    disk=$node
    if [ "$front_end" = fuse ]; then
        disk=$(losetup --find --show "$node") || skip "no loop device can be had"
        at_end "losetup -d $disk 2> /dev/null"
    fi
    mkfs.ext4 -q -b 4096 "$disk"
    mkdir "$work/mount" "$work/copy"
    at_end 'umount -l "$work/mount" 2> /dev/null'
    mount "$disk" "$work/mount"
    before=$(complaints "$disk")
    pattern 50000 "$SEED" > "$work/text"
    for way in mapped direct; do
        head -c $mib /dev/zero > "$work/mount/$way"
        background byte_writer verify "$work/mount/$way" 0 $mib "$SEED" "$work/model-$way" $way
    done
    background make_and_remove
    # What is not in memory has to be read again.
    between_kills() { [ $((RANDOM % 3)) != 0 ] || echo 3 > /proc/sys/vm/drop_caches; }
    drill commit_mounted
    end_programs
    come_back
    same "the node" "$(status_of "$name" node)" "$node"
    same "complaints of the kernel" "$(complaints "$disk")" "$before"
    expect 0 zbig commit "$name" --freeze fs
    holds_files "$out"
    echo 3 > /proc/sys/vm/drop_caches
    for way in mapped direct; do cmp "$work/mount/$way" "$work/model-$way"; done
    umount "$work/mount"
    [ "$front_end" = nbd ] || losetup -d "$disk"
    expect 0 zbig commit "$name"
    expect 0 zbig detach "$name"
}

"$scene"
the_end
