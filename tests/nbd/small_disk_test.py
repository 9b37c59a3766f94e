#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The overlay's file system is full, or becomes read-only: the program that writes is told,
what was acknowledged is there, and the device goes on when there is room again."""
import os
import subprocess

from nbdtest import PAGE, Report, Scratch, Server, database, error_of, skip

report = Report()
PART = 64 << 10


def remount(folder, options):
    subprocess.run(["mount", "-o", "remount," + options, folder], check=True)


def part(number, generation):
    return bytes([generation, number % 251, number // 251]) * (PART // 3) + b"!" * (PART % 3)


def acknowledged_is_there(handle, written):
    report.true("what was acknowledged is there", all(
        handle.pread(PART, number * PART) == data for number, data in written.items()))


def full(server, folder):
    handle = server.connect("/a")
    written = {}
    error = None
    for number in range(handle.get_size() // PART):
        error = error_of(lambda number=number: handle.pwrite(part(number, 1), number * PART))
        if error is not None:
            break
        written[number] = part(number, 1)
    report.equal("a write with no room", error, "ENOSPC")
    report.true("some writes went well", 4 < len(written) < 32, len(written))
    acknowledged_is_there(handle, written)
    dirty = server.ok("status", device="d")["devices"][0]["dirty_bytes"]
    report.true("dirty", len(written) * PART <= dirty <= (len(written) + 1) * PART, dirty)

    # What is in the overlay can be written again where it is. A flush has to write down which
    # pages those are, and says so if there is no room for that.
    report.equal("over a dirty page", error_of(lambda: handle.pwrite(part(0, 2), 0)), None)
    report.true("flush", error_of(handle.flush) in (None, "ENOSPC"))
    written[0] = part(0, 2)
    # A commit that fails while the disk is full.
    server.ok("freeze", device="d")
    report.equal("a write during a commit", error_of(lambda: handle.pwrite(part(1, 3), PART)),
                 "ENOSPC")
    server.ok("unfreeze", device="d")
    acknowledged_is_there(handle, written)

    # A server that dies now.
    server.kill()
    server.start()
    server.ok("attach", device="d", export="/a", volume="/a", overlay=os.path.join(folder, "d"))
    handle = server.connect("/a")
    acknowledged_is_there(handle, written)

    remount(folder, "size=32m")
    for number in range(handle.get_size() // PART):
        handle.pwrite(part(number, 4), number * PART)
        written[number] = part(number, 4)
    handle.flush()
    acknowledged_is_there(handle, written)
    server.ok("abort", device="d")
    server.ok("detach", device="d")


def read_only(server, folder):
    overlay = os.path.join(folder, "d")
    server.ok("attach", device="d", export="/a", volume="/a", overlay=overlay)
    handle = server.connect("/a")
    handle.pwrite(b"1" * PAGE, 0)
    handle.flush()
    server.ok("detach", device="d", keep=True)
    remount(folder, "ro")
    reply = server.control("attach", device="d", export="/a", volume="/a", overlay=overlay)
    report.equal("attach on a read-only file system", (reply["ok"], reply.get("code")),
                 (False, "read_only"))
    report.true("one line that says so", "Read-only file system" in reply["error"] and
                "\n" not in reply["error"], reply)
    remount(folder, "rw")
    report.equal("dirty", server.ok("attach", device="d", export="/a", volume="/a",
                                    overlay=overlay)["dirty_bytes"], PAGE)
    report.equal("content", server.connect("/a").pread(PAGE, 0), b"1" * PAGE)


def main():
    with Scratch() as folder:
        small = os.path.join(folder, "small")
        os.mkdir(small)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", small],
                          stderr=subprocess.DEVNULL, check=False).returncode != 0:
            skip("no small tmpfs can be mounted here")
        try:
            with Server(folder, database(folder)) as server:
                server.ok("attach", device="d", export="/a", volume="/a",
                          overlay=os.path.join(small, "d"))
                full(server, small)
                read_only(server, small)
        finally:
            subprocess.run(["umount", "-l", small], check=False)
    report.done()


if __name__ == "__main__":
    main()
