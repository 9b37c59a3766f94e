#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What zbig writes, in every format, block size and flavour, the real Python classes read: at every
tid, and through wendelin.core's memory mapping; the checkers of ZODB and BTrees have nothing to
say.

    zbig_writes_test.py py3|py2 new            a new database (py2: made by Python 2)
    zbig_writes_test.py py2|py3 FOLDER         a copy of a database of tests/data/original
"""
import json
import os
import random
import shutil
import sys

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)),
                os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support")]
from model import Model, Volume, patch  # noqa: E402
from peer import Peer  # noqa: E402
from zbigtest import DATA, MiB, Report, Scratch, zbig, zbig_ok  # noqa: E402

report = Report()
rng = random.Random(20260101)


def put(url, model, path, offset, data, fmt=None):
    """One import; what the model holds afterwards."""
    options = ["--format", fmt] if fmt else []
    said = zbig_ok("import", url, path, "-", "--offset", offset, *options, stdin=data).text.strip()
    model.volumes[path].write(offset, data)
    report.true("a tid", len(said) == 16, said)
    model.committed(said)


def new(url, environment, peer):
    if environment == "py2":
        peer("create", url=url, path="/first", blksize=4096)
    model = Model([])
    arrays = [("/array", 2 * MiB, 5 * MiB, "<f8"), ("/site/data/bytes", 2 * MiB, 3000000, "|u1"),
              ("/site/odd", 2 * MiB, 12 * 1000, "<c8"), ("/nothing", 2 * MiB, 0, ">i4")]
    for path, blksize, size, dtype in arrays:
        size -= size % int(dtype[2:])
        zbig_ok("create", url, path, "--size", size, "--dtype", dtype)
        model.volumes[path] = Volume(path, blksize, size)
    zbig_ok("create", url, "/shaped", "--dtype", "i2", "--shape", "30,20,7")
    model.volumes["/shaped"] = Volume("/shaped", 2 * MiB, 30 * 20 * 7 * 2)
    for blksize in (1, 100, 512, 4096, 12345, 65536, 2 * MiB):
        for fmt in ("ZBlk0", "ZBlk1"):
            path = "/sizes/%d-%s" % (blksize, fmt)
            zbig_ok("create", url, path, "--raw", "--block-size", blksize)
            model.volumes[path] = Volume(path, blksize)
    zbig_ok("create", url, "/sized", "--raw", "--size", 5000, "--block-size", 4096)
    model.volumes["/sized"] = Volume("/sized", 4096, 8192)

    for path, _, size, _ in arrays:
        for fmt in ("ZBlk0", "ZBlk1", "auto", "ZBlk1", "ZBlk0", None):
            if size:
                length = min(rng.choice([1, 4096, 100000, 2 * MiB]), size)
                put(url, model, path, rng.randrange(size - length + 1), patch(rng, length), fmt)
    put(url, model, "/shaped", 0, patch(rng, 8400))
    put(url, model, "/sized", 4000, patch(rng, 200))
    for path, volume in list(model.volumes.items()):
        if path.startswith("/sizes/"):
            fmt = path.split("-")[1]
            count = 200 if volume.blksize <= 4096 else 5
            blocks = b"".join(patch(rng, volume.blksize - 1) + b"\1" for _ in range(count))
            put(url, model, path, 0, blocks, fmt)  # many: the block table splits
            put(url, model, path, volume.blksize * 2, b"\xff" * volume.blksize, fmt)
            if volume.blksize > 1:
                put(url, model, path, volume.blksize + 1, b"\0" * (volume.blksize - 1), fmt)
    return model


def continued(url, folder):
    """Changes every small volume of a database that Python wrote."""
    source = os.path.join(DATA, "original", folder)
    shutil.copy(os.path.join(source, "Data.fs"), url)
    with open(os.path.join(source, "manifest.json"), encoding="utf-8") as f:
        manifest = json.load(f)
    model = Model([])
    for volume in manifest["volumes"]:
        state = volume["states"][-1] if volume["states"] else {}
        if not state or state.get("exists") is False or state["size"] > 64 * MiB:
            continue
        path = volume["path"]
        if path.startswith("oid:"):
            continue  # the same object as one with a path, or reached by nothing in Python's root
        model.volumes[path] = Volume(path, volume["blksize"],
                                     state["size"] if volume["class"] == "ZBigArray" else None)
        model.volumes[path].content[:] = zbig_ok("export", url, path).out
    for path, volume in model.volumes.items():
        for fmt in ("ZBlk1", "ZBlk0", None, "auto"):
            room = volume.room()
            if not room:
                continue
            length = min(rng.choice([1, 300, 5000]), room)
            data = bytes(rng.randrange(1, 256) for _ in range(length))
            put(url, model, path, rng.randrange(room - length + 1), data, fmt)
    return model


def main():
    environment, what = sys.argv[1:]
    with Scratch() as folder, Peer(environment) as peer:
        url = os.path.join(folder, "Data.fs")
        model = new(url, environment, peer) if what == "new" else continued(url, what)
        model.compare_zbig(report, url)
        model.compare_python(report, url, peer)
        check = zbig("check", url)
        report.true("zbig check", check.status == 0, check)
        if peer.maps():
            for path, volume in model.volumes.items():
                if volume.fixed and volume.blksize == 2 * MiB and volume.content:
                    report.equal("mapped: " + path, peer("mapped", url=url, path=path),
                                 volume.digest()[1])
        else:
            print("wendelin.core has no C extension here: nothing was mapped in Python")
    report.done()


if __name__ == "__main__":
    main()
