# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash source=tests/agent/lib.sh
#
# The devices of a race.

source "$(dirname "${BASH_SOURCE[0]}")/../agent/lib.sh"

db=$work/Data.fs
# shellcheck disable=SC2034 # for whoever sources this
actors=()
front_ends=(fuse)
attached=0

# attach_set OPTION... : one device of each volume; sets devices.
attach_set() {
    local front=${front_ends[attached % ${#front_ends[@]}]} volume name where
    devices=
    attached=$((attached + 1))
    for volume in A B; do
        name=zbt$$-$attached$volume
        where=(--nbd auto)
        if [ "$front" = fuse ]; then where=(--fuse "$work/$name"); fi
        expect 0 zbig attach "$db" "/$volume" --name "$name" "${where[@]}" "$@"
        devices=${devices:+$devices,}$name
    done
}

# attach_all [FRONT_END...]: sets actors, the arguments for the race.
attach_all() {
    [ $# = 0 ] || front_ends=("$@")
    case " ${front_ends[*]} " in *" fuse "*) need_fuse ;; esac
    zbig create "$db" /A --size 4M --block-size 256K > /dev/null
    zbig create "$db" /B --size 4M --block-size 256K > /dev/null
    start_agent
    attach_set --follow manual --format ZBlk0
    actors+=(--writer "$devices")
    attach_set --follow manual --format ZBlk1
    actors+=(--writer "$devices")
    attach_set
    actors+=(--following-writer "$devices")
    attach_set
    actors+=(--reader "$devices")
    attach_set --read-only
    actors+=(--reader "$devices")
    attach_set --follow manual --read-only
    # shellcheck disable=SC2034
    actors+=(--snapshot-reader "$devices")
}
