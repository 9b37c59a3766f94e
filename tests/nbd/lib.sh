# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
#
# What the shell tests of the server share. Source it first.
#
#   requires COMMAND...   skips the test (77) if one is missing
#   cleanup COMMAND...    runs it at the end, last one first
#   start_server ARG...   nbdkit with the plugin; sets $sock, $control, $server_pid
#   uri EXPORT            the URI of an export of it
#   ask JSON              one request on the control socket; prints the reply, fails if it says no
#   same WHAT GOT WANTED  compares; counts; finish reports
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
bin=${ZBIG_BIN:-$here/../../build/bin}
plugin=$bin/nbdkit-zbig-plugin.so
# shellcheck disable=SC2034  # for who sources this
data=$here/../data
failures=0 compared=0
cleanups=()

cleanup() { cleanups=("$(printf '%q ' "$@")" "${cleanups[@]}"); }
run_cleanups() { for command in "${cleanups[@]}"; do eval "$command" || true; done; }
trap run_cleanups EXIT

requires() {
  for command in "$@"; do
    command -v "$command" > /dev/null || { echo "SKIP: no command $command"; exit 77; }
  done
}
requires nbdkit nbdinfo python3

folder=$(mktemp -d "${TMPDIR:-/tmp}/zbig-test-XXXXXX")
cleanup rm -rf "$folder"

stop_server() { kill "$server_pid" 2> /dev/null && wait "$server_pid"; }

start_server() {
  sock=$folder/nbd.sock control=$folder/control.sock
  rm -f "$sock" "$folder/pid"
  nbdkit -f -U "$sock" -P "$folder/pid" "$plugin" "$@" control="$control" 2>> "$folder/log" &
  server_pid=$!
  cleanup stop_server
  for _ in $(seq 300); do
    [ -e "$folder/pid" ] && return
    kill -0 "$server_pid" 2> /dev/null || break
    sleep 0.02
  done
  cat "$folder/log"
  exit 1
}

uri() {
  python3 -c 'import sys, urllib.parse
print("nbd+unix:///%s?socket=%s" % (urllib.parse.quote(sys.argv[1], safe=""), sys.argv[2]))' \
    "$1" "$sock"
}

ask() {
  python3 - "$control" "$1" << 'EOF'
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(60)
s.connect(sys.argv[1])
s.sendall(sys.argv[2].encode() + b"\n")
reply = s.makefile().readline().strip()
print(reply)
sys.exit(0 if json.loads(reply)["ok"] else 1)
EOF
}

same() {
  compared=$((compared + 1))
  [ "$2" = "$3" ] && return
  failures=$((failures + 1))
  printf 'FAILED: %s\n--- got\n%s\n--- wanted\n%s\n' "$1" "$2" "$3"
}

finish() {
  echo "$compared comparisons, $failures failures"
  [ "$failures" = 0 ] && [ "$compared" -gt 0 ]
}
