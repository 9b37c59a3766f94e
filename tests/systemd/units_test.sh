#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# What cmake --install puts in place for systemd and udev is what these understand.
#
#   units_test.sh BUILD_FOLDER

# shellcheck source=tests/lib.sh
source "$(dirname "$0")/../lib.sh"
need cmake systemd-analyze systemd-tmpfiles systemd-sysusers

DESTDIR=$work/tree cmake --install "$1" > "$work/install.log" || fail "$(< "$work/install.log")"
units=$(dirname "$(find "$work/tree" -name zbigd.service)")
# Installed nowhere, the program is not where the unit says.
sed -i "s|^ExecStart=/|ExecStart=$work/tree/|" "$units/zbigd.service"

step "units"
export SYSTEMD_UNIT_PATH=$units:
expect 0 systemd-analyze verify --man=no "$units"/zbigd.service "$units"/*.target \
    "$units/zbig-device@.service"
same "complaints" "$err" ""
# Those of units that exist only at run time are tried by ./run.
for folder in zbig-nbdkit-.scope.d zbig-fuse-.scope.d run-zbig-dev-.mount.d; do
    [ -s "$(echo "$units/$folder"/*.conf)" ] || fail "$folder is empty"
done

step "the sandbox is no weaker than it was: 4.6 of 10, most of it for root, mounts and sockets"
expect 0 systemd-analyze security --offline=true --threshold=47 zbigd.service

step "users and folders"
mkdir -p "$work/root/etc" "$work/root/run" "$work/root/var/lib"
printf 'root:x:0:0:root:/root:/bin/sh\n' > "$work/root/etc/passwd"
printf 'root:x:0:\n' > "$work/root/etc/group"
expect 0 systemd-sysusers --root="$work/root" "$(find "$work/tree" -path '*/sysusers.d/zbig.conf')"
grep -q '^zbig:' "$work/root/etc/group" || fail "no group zbig"
expect 0 systemd-tmpfiles --root="$work/root" --create \
    "$(find "$work/tree" -path '*/tmpfiles.d/zbig.conf')"
same "/run/zbig" "$(stat -c %a:%u "$work/root/run/zbig")" 700:0
same "/var/lib/zbig" "$(stat -c %a:%u "$work/root/var/lib/zbig")" 700:0

step "rules"
for rules in 59-zbig.rules 61-zbig.rules; do
    cmp "$(find "$work/tree" -path "*/udev/rules.d/$rules")" \
        "$(dirname "$0")/../../udev/$rules" || fail "$rules"
done
