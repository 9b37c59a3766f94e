#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Programs of others as clients: nbdinfo, nbdcopy, qemu-img, fio; a volume, a state and a device.
# shellcheck source=tests/nbd/lib.sh
. "$(dirname "$0")/lib.sh"
requires nbdcopy qemu-img fio sha256sum

cp "$data/original/py3-zblk0/Data.fs" "$folder/Data.fs"
read -r tid digest < <(python3 - "$data/original/py3-zblk0/manifest.json" << 'EOF'
import json, sys
state = json.load(open(sys.argv[1]))["volumes"][0]["states"][-2]
print(state["tid"], state["sha256"])
EOF
)
start_server "$folder/Data.fs"
ask '{"op":"attach","device":"d","export":"/a","volume":"/a","overlay":"'"$folder/overlay"'"}' \
  > /dev/null

same "nbdinfo --size" "$(nbdinfo --size "$(uri "/a@$tid")")" 12582912
same "nbdinfo --can" "$(nbdinfo --can fua "$(uri /a)" && echo yes)" yes
same "nbdinfo --map" "$(nbdinfo --map "$(uri /a#nothing)" 2>&1 | grep -c 'no export named')" 1
nbdcopy "$(uri "/a@$tid")" "$folder/copy"
same "nbdcopy of a state" "$(sha256sum < "$folder/copy")" "$digest  -"
same "nbdcopy over 4 connections" \
  "$(nbdcopy -C 4 --request-size=65536 "$(uri "/a@$tid")" - | sha256sum)" "$digest  -"

same "qemu-img info" "$(qemu-img info --output=json "$(uri "/a@$tid")" |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["virtual-size"])')" 12582912
qemu-img convert -f raw -O qcow2 "$(uri "/a@$tid")" "$folder/copy.qcow2"
same "qemu-img compare" "$(qemu-img compare -f qcow2 -F raw "$folder/copy.qcow2" "$folder/copy")" \
  "Images are identical."

# Into the device and back.
head -c 12582912 /dev/urandom > "$folder/random"
nbdcopy --flush "$folder/random" "$(uri /a)"
same "nbdcopy there and back" "$(nbdcopy "$(uri /a)" - | sha256sum)" \
  "$(sha256sum < "$folder/random")"
qemu-img convert -n -f raw -O raw "$folder/copy" "$(uri /a)"
same "qemu-img there and back" "$(nbdcopy "$(uri /a)" - | sha256sum)" "$digest  -"

fio --name=verify --ioengine=nbd --uri="$(uri /a)" --rw=randrw --bs=4k,1k-64k --iodepth=16 \
  --size=12m --io_size=48m --verify=crc32c --verify_fatal=1 --do_verify=1 --fsync=50 \
  --aux-path="$folder" --output="$folder/fio" > /dev/null || { cat "$folder/fio"; same fio \
    failed passed; }
same "fio: errors" "$(grep -c 'err= 0' "$folder/fio")" 1

ask '{"op":"freeze","device":"d"}' > /dev/null
same "frozen map" "$(nbdinfo --map --totals "$(uri '/a#frozen')" | grep -c data)" 1
ask '{"op":"unfreeze","device":"d"}' > /dev/null
same "listed" "$(nbdinfo --list "nbd+unix://?socket=$sock" | grep -c '^export=')" 1
same "errors in the log" "$(grep 'error:' "$folder/log" | grep -vc '#nothing' || true)" 0
finish
