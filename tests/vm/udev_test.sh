#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
#
# The rules of udev/ under a real systemd-udevd: the link, the properties, no probe of the contents;
# after detach no link is left.
set -u
bin=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
udevd=/lib/systemd/systemd-udevd
if [ ! -x "$udevd" ] || ! command -v udevadm > /dev/null; then
    echo "SKIP: udev is not installed"
    exit 77
fi
mkdir -p /run/udev/rules.d
cp "$root"/udev/*.rules /run/udev/rules.d/
"$udevd" --daemon || exit 1
trap 'udevadm control --exit' EXIT
udevadm trigger --subsystem-match=block && udevadm settle -t 60
"$bin/vm_tests" --gtest_color=no --gtest_filter='WithUdev.*' --gtest_also_run_disabled_tests
