#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Every volume of one database at every listed tid, copied over NBD, has the hash that its manifest
lists; what is called a hole reads as zeros.

    databases_test.py FOLDER           a folder of tests/data/original
    databases_test.py FOLDER NAME.fs   a database of tests/data/more/FOLDER
"""
import json
import os
import subprocess
import sys

from nbdtest import DATA, Report, Scratch, Server, data_extents, nbd, require, sha256

# Above this, blocks are read one by one.
WHOLE = 64 << 20

report = Report()
require("nbdcopy")


def check_whole(server, export, size, digest, what):
    copied = subprocess.run(["nbdcopy", server.uri(export), "-"], capture_output=True, timeout=120,
                            check=False)
    if not report.equal(what + ": nbdcopy", (copied.returncode, copied.stderr), (0, b"")):
        return
    content = copied.stdout
    report.equal(what + ": size", len(content), size)
    report.equal(what + ": sha256", sha256(content), digest)
    handle = server.connect(export)
    at = 0
    for offset, length in data_extents(handle) + [(size, 0)] if size else []:
        report.true("%s: hole at %d is zeros" % (what, at), not any(content[at:offset]))
        at = offset + length
    handle.shutdown()


def check_blocks(server, export, blksize, blocks, what):
    handle = server.connect(export)
    for number, digest in blocks.items():
        block = bytes(handle.pread(blksize, number * blksize))
        report.equal("%s block %d" % (what, number), sha256(block)[:16], digest)
    handle.shutdown()


def refused(server, export, what):
    try:
        server.connect(export)
    except nbd.Error:
        report.compared += 1
        return
    report.true(what + ": is refused", False)


def original(server, manifest):
    for volume in manifest["volumes"]:
        blocks = {}
        for state in volume["states"]:
            export = "%s@%s" % (volume["path"], state["tid"])
            if state.get("exists") is False:
                refused(server, export, export)
                continue
            for number, block in state["blocks"].items():
                if block is None:
                    blocks.pop(int(number), None)
                else:
                    blocks[int(number)] = block[0]
            if manifest["since"] and state["tid"] < manifest["since"]:
                continue
            if state["size"] <= WHOLE:
                check_whole(server, export, state["size"], state["sha256"], export)
            else:
                check_blocks(server, export, volume["blksize"], blocks, export)
        if volume["states"] and volume["states"][-1].get("exists") is not False:
            handle = server.connect(volume["path"])
            report.equal(volume["path"] + ": size at the head", handle.get_size(),
                         volume["states"][-1]["size"])
            handle.shutdown()


def more(server, manifest):
    until = manifest.get("until") or "f" * 16
    for state in manifest["states"]:
        for path, expected in state["volumes"].items():
            export = "%s@%s" % (path, state["tid"])
            if state["tid"] > until:
                refused(server, export, export)
            elif expected["size"] > 0 and "sha256" in expected:
                check_whole(server, export, expected["size"], expected["sha256"], export)


def main():
    if len(sys.argv) == 2:
        path = os.path.join(DATA, "original", sys.argv[1], "manifest.json")
        with open(path, encoding="utf-8") as f:
            expected = json.load(f)
        url, check = os.path.join(DATA, "original", sys.argv[1], "Data.fs"), original
    else:
        path = os.path.join(DATA, "more", sys.argv[1], "manifest.json")
        with open(path, encoding="utf-8") as f:
            expected = json.load(f)["databases"][sys.argv[2]]
        url, check = os.path.join(DATA, "more", sys.argv[1], sys.argv[2]), more
    with Scratch() as folder:
        if "damaged" in expected and expected["until"] is None:
            try:
                server = Server(folder, url)
                report.true("an empty file is an empty database", os.path.getsize(url) <= 4, url)
                server.kill()
            except AssertionError as error:
                report.true("says why", "error: get_ready: " in str(error), error)
        else:
            with Server(folder, url) as server:
                check(server, expected)
    report.done()


if __name__ == "__main__":
    main()
