#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The progress bar: on a terminal only, after a second, and gone at the end."""
import os
import pty
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from zbigtest import MiB, Report, Scratch, ZBIG, zbig_ok  # noqa: E402

report = Report()
BAR = re.compile(rb"\rexport /A  \[=*>? *\]  (\d+)%  [\d.]+ MiB of 16.0 MiB  [\d.]+ \w+/s\x1b\[K")
WIPED = b"\r\x1b[K"


def export(database, stderr, seconds):
    """Exports to a reader that takes its time, and returns what it read."""
    program = subprocess.Popen([ZBIG, "export", database, "/A"], stdout=subprocess.PIPE,
                               stderr=stderr)
    os.close(stderr)
    out = b""
    for _ in range(int(seconds * 10)):
        time.sleep(0.1)
        out += program.stdout.read(MiB // 2)
    out += program.stdout.read()
    report.equal("the status", program.wait(60), 0)
    report.equal("what was exported", len(out), 16 * MiB)


def read_all(fd):
    out = b""
    while True:
        try:
            more = os.read(fd, 4096)
        except OSError:     # a terminal whose other side is closed
            more = b""
        if not more:
            os.close(fd)
            return out
        out += more


with Scratch() as folder:
    db = os.path.join(folder, "Data.fs")
    zbig_ok("create", db, "/A", "--size", "16M")
    content = os.path.join(folder, "content")
    with open(content, "wb") as f:
        f.write(os.urandom(16 * MiB))
    zbig_ok("import", db, "/A", content)

    ours, theirs = pty.openpty()
    export(db, theirs, 2)
    shown = read_all(ours)
    bars = [int(share) for share in BAR.findall(shown)]
    report.true("bars are drawn", len(bars) >= 2, shown)
    report.true("they grow", bars == sorted(bars) and bars[:1] < bars[-1:], bars)
    report.true("the line is wiped", shown.endswith(WIPED), shown[-100:])
    report.equal("nothing else is shown", BAR.sub(b"", shown), WIPED)

    ours, theirs = pty.openpty()
    export(db, theirs, 0)
    report.equal("a quick export", read_all(ours), b"")

    ours, theirs = os.pipe()
    export(db, theirs, 2)
    report.equal("without a terminal", read_all(ours), b"")
report.done()
