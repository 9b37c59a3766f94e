#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Exports: which there are, what connecting to each gives, many connections, a damaged block, and a
server that ends while requests run.
"""
import json
import os
import subprocess
import sys
import threading
import time

from nbdtest import (PAGE, PLUGIN, Report, Scratch, Server, database, error_of, manifest, nbd,
                     require, zbig_ok)

report = Report()
require("nbdinfo")


def listed(server):
    out = subprocess.run(["nbdinfo", "--list", "--json", "nbd+unix://?socket=" + server.socket],
                         capture_output=True, timeout=60, check=True).stdout
    return {e["export-name"]: e for e in json.loads(out)["exports"]}


def names(folder):
    volumes = {v["path"]: v for v in manifest("py3-volumes")["volumes"]}
    with Server(folder, database(folder, "py3-volumes")) as server:
        exports = listed(server)
        expected = {p for p, v in volumes.items() if not p.startswith("oid:") and v["states"] and
                    v["states"][-1].get("exists") is not False}
        report.equal("exports", set(exports) & expected, expected)
        for path in expected:
            export, volume = exports[path], volumes[path]
            report.equal(path + ": size", export["export-size"], volume["states"][-1]["size"])
            report.true(path + ": description", volume["class"] in export["description"] and
                        str(volume["blksize"]) in export["description"], export)
            flags = ("is_read_only", "can_cache", "can_flush", "can_multi_conn", "is_rotational",
                     "can_trim", "can_fua", "can_zero")
            report.equal(path + ": flags", [export[f] for f in flags],
                         [True, True, True, True, False, False, False, False])
            report.equal(path + ": block sizes", [export["block_size_" + s] for s in (
                "minimum", "preferred", "maximum")], [1, 256 << 10, 32 << 20])
        for name in ("/nobody", "nobody", "oid:ffff", "oid:", "/", "", "x" * 4000, "/a@", "@",
                     "/nobody@" + manifest("py3-volumes")["last_tid"], "oid:zz",
                     sorted(expected)[0] + "#frozen", sorted(expected)[0] + "@" + "f" * 16,
                     sorted(expected)[0] + "@0000000000000001"):
            report.equal("connecting to %r" % name[:40], error_of(lambda: server.connect(name)),
                         "ENOENT")
        report.true("alive", listed(server) == exports)


def default_export(folder):
    with Server(folder, database(folder)) as server:
        report.equal("the only volume", server.read(""), server.read("/a"))
        report.equal("write to a volume that is no device",
                     error_of(lambda: raw(server, "/a").pwrite(b"x", 0)), "EPERM")


def raw(server, export):
    """A connection that sends what libnbd would refuse itself."""
    handle = server.connect(export)
    handle.set_strict_mode(0)
    return handle


def states(folder):
    """A process sees one state through all of its connections, a new process the head."""
    url = database(folder)
    with Server(folder, url) as server:
        first = server.connect("/a")
        before = bytes(first.pread(PAGE, 0))
        change = os.path.join(folder, "change")
        with open(change, "wb") as f:
            f.write(b"c" * PAGE)
        zbig_ok("import", url, "/a", change)
        second = server.connect("/a")
        report.equal("a second connection of a process", bytes(second.pread(PAGE, 0)), before)
        other = subprocess.run(["nbdcopy", server.uri("/a"), "-"], capture_output=True, timeout=60,
                               check=True).stdout
        report.equal("another process", other[:PAGE], b"c" * PAGE)
        first.shutdown()
        second.shutdown()
        del first, second
        time.sleep(0.2)
        report.equal("the process later", server.read("/a", 0, PAGE), b"c" * PAGE)


def many_connections(folder):
    with Server(folder, database(folder)) as server:
        server.attach("d", "/a", "/a")
        server.ok("freeze", device="d")
        handles = [server.connect(("/a", "/a#frozen", "/a@" + manifest()["last_tid"])[i % 3])
                   for i in range(100)]
        report.true("all answer", all(len(h.pread(PAGE, 0)) == PAGE for h in handles))
        report.true("listed", {"/a", "/a#frozen"} <= set(listed(server)))


def damaged_block(folder):
    url = database(folder)
    states_ = manifest()["volumes"][0]["states"]
    blocks = {}
    for state in states_:
        for number, block in state["blocks"].items():
            blocks[int(number)] = block
    bad = min(number for number, block in blocks.items() if block)
    oid = bytes.fromhex(blocks[bad][2])
    with open(url, "r+b") as f:
        content = f.read()
        # A data record: oid, tid, previous record, transaction, 0, length, data.
        at = content.rfind(oid + b"\x04\x05")
        tid = content[at + 8:at + 16].hex()
        f.seek(at + 42)
        f.write(b"\xee" * 20)
    with Server(folder, url) as server:
        handle = server.connect("/a")
        blksize, size = 2 << 20, handle.get_size()
        for number in range(size // blksize):
            error = error_of(lambda: handle.pread(PAGE, number * blksize + PAGE))
            report.equal("block %d" % number, error, "EIO" if number == bad else None)
        report.equal("a read that touches it",
                     error_of(lambda: handle.pread(2 * blksize, bad * blksize)), "EIO")
        log = server.log()
        for part in ("/a", "block %d" % bad, oid.hex().lstrip("0"), tid, "Data.fs"):
            report.true("the log names " + part, part in log, log[-500:])
        # A device of it too: other pages can be written, and even that block, page by page.
        server.attach("d", "/a", "/a")
        device = server.connect("/a")
        device.pwrite(b"x" * PAGE, bad * blksize)
        report.equal("written page", bytes(device.pread(PAGE, bad * blksize)), b"x" * PAGE)
        report.equal("part of a page that can't be read",
                     error_of(lambda: device.pwrite(b"x", bad * blksize + PAGE)), "EIO")
        report.equal("next page", error_of(lambda: device.pread(PAGE, bad * blksize + PAGE)), "EIO")
        report.equal("dirty", server.ok("status")["devices"][0]["dirty_bytes"], PAGE)


def stopped(folder):
    """SIGTERM while requests run: it ends when the clients, who are told, have gone. (nbdkit waits
    for clients that stay.)"""
    url = database(folder)
    with Server(folder, url) as server:
        server.attach("d", "/a", "/a")
        done, errors = [0], []

        def work():
            try:
                handle = server.connect("/a")
                while True:
                    handle.pwrite(b"w" * 65536, 0)
                    handle.pread(1 << 20, 0)
                    done[0] += 1
            except nbd.Error as error:
                errors.append(str(error))  # not the error, which would keep the connection open

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        report.equal("exit status", server.stop(), 0)
        for thread in threads:
            thread.join(30)
        report.true("clients were told", len(errors) == 8 and done[0] > 0, (errors, done))
        server.start()
        report.equal("dirty", server.attach("d", "/a", "/a")["dirty_bytes"], 65536)


def does_not_start(folder):
    empty = os.path.join(folder, "folder")
    os.mkdir(empty)
    cases = [
        (["/no/such/Data.fs"], "No such file|no such|not there"), ([empty], "folder|irectory"),
        ([], "url=URL is missing"), (["url="], "url= is empty"),
        (["gopher://x"], "gopher"), ([database(folder), "at=12"], "not 16 hex digits"),
        ([database(folder), "at=" + "7" * 16], "no transaction"),
        ([database(folder), "color=red"], "no parameter is called 'color'"),
        ([database(folder), "url=twice"], "twice"),
    ]
    for arguments, part in cases:
        done = subprocess.run(["nbdkit", "-f", "-U", os.path.join(folder, "s"), PLUGIN, *arguments],
                              capture_output=True, timeout=60, check=False, cwd=folder)
        text = done.stderr.decode()
        report.true("%s: %s" % (arguments, part), done.returncode != 0 and
                    any(p in text for p in part.split("|")) and "error: " in text, text)
    # A relative path is that of the folder where it was typed, whatever nbdkit does.
    relative = subprocess.run(["nbdkit", "-U", "-", PLUGIN, "Data.fs", "--run",
                               "nbdinfo --size \"$uri\""],
                              capture_output=True, timeout=60, cwd=folder, check=False)
    report.equal("a relative path", (relative.returncode, relative.stdout), (0, b"12582912\n"))


def main():
    for test in (names, default_export, states, many_connections, damaged_block, stopped,
                 does_not_start):
        if len(sys.argv) > 1 and test.__name__ not in sys.argv[1:]:
            continue
        with Scratch() as folder:
            test(folder)
    report.done()


if __name__ == "__main__":
    main()
