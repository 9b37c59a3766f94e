#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The same writes by wendelin.core and by zbig store the same records: class by class, and opcode
by opcode but for the numbers of objects.

    record_sets_test.py py2|py3 ZBlk0|ZBlk1|create

Runs itself again with the Python of the peer environment.
"""
from __future__ import print_function
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ENVIRONMENT, FORMAT = sys.argv[1:3]
PEER = os.path.join(os.environ.get("PEERS", ".peers"), ENVIRONMENT, "bin", "python")
if os.environ.get("ZBIG_RECORD_SETS") != "1":
    if not os.path.exists(PEER):
        print("SKIP: no %s: tests/peers/setup makes it" % PEER)
        sys.exit(77)
    os.environ["ZBIG_RECORD_SETS"] = "1"
    os.execv(PEER, [PEER, "-W", "ignore"] + sys.argv)

import io  # noqa: E402
try:
    from zodbpickle import pickletools_2 as pickletools     # Python 2: knows protocol 3
except ImportError:
    import pickletools  # noqa: E402
import random  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402

sys.path.insert(0, os.path.join(HERE, "..", "peers"))
import transaction  # noqa: E402
from BTrees.check import check as check_btree  # noqa: E402
from ZODB.DB import DB  # noqa: E402
from ZODB.FileStorage import FileStorage  # noqa: E402
import zpeer  # noqa: E402
from wendelin.bigfile.file_zodb import ZBigFile  # noqa: E402

ZBIG = os.path.join(os.environ.get("ZBIG_BIN", "build/bin"), "zbig")
DRIVER = os.path.join(os.environ.get("ZBIG_BIN", "build/bin"), "commit_driver")
BLKSIZE = 10 * 4096 + 1000
BLOCKS = 200        # enough for buckets to split, now and then


def noise(rng, n):
    return bytes(bytearray(rng.randrange(1, 256) for _ in range(n)))


def opcodes(data):
    """Both pickles of a record, with every reference's oid taken out."""
    result, stream = [], io.BytesIO(data)
    for _ in range(2):
        for op, arg, _ in pickletools.genops(stream):
            name = op.name
            if name in ("SHORT_BINBYTES", "SHORT_BINSTRING") and len(arg) == 8:
                arg = "oid"
            result.append((name, arg))
    if FORMAT == "create" and ENVIRONMENT == "py2":
        # The order of a dict follows from hashes there, and what is named from who holds it.
        result = sorted((name, None if name == "BINGET" else arg)
                        for name, arg in result if name != "BINPUT")
    return result


def last_records(path):
    storage = FileStorage(path, read_only=True)
    for transaction_ in storage.iterator():     # the iterator closes its file when it is used up
        if transaction_.tid == storage.lastTransaction():
            records = sorted(repr(opcodes(r.data)) for r in transaction_)
    storage.close()
    return records


def describe(records):
    return [r[:160] for r in records]


def main():
    rng = random.Random(7)
    tmp = tempfile.mkdtemp(prefix="zbig-record-sets-")
    try:
        theirs, ours = os.path.join(tmp, "theirs.fs"), os.path.join(tmp, "ours.fs")
        db = DB(FileStorage(theirs))
        root = db.open().root()
        root["f"] = ZBigFile(BLKSIZE)
        transaction.commit()
        db.close()
        shutil.copy(theirs, ours)
        model = {}
        for step in range(40):
            # Whole blocks, each different from what it was: Python stores an equal ZBlk0 too.
            changes = {}
            for _ in range(rng.choice([1, 1, 2, 40])):
                blk = rng.choice([rng.randrange(BLOCKS), len(model)])
                data = bytearray(model.get(blk, b"\0" * BLKSIZE))
                kind = rng.randrange(5)
                at = rng.randrange(BLKSIZE)
                if kind == 0:
                    data[at:] = noise(rng, BLKSIZE - at)
                elif kind == 1:
                    at -= at % 4096
                    data[at:at + 8192] = b"\0" * len(data[at:at + 8192])
                elif kind == 2:
                    data = bytearray(BLKSIZE)
                    data[:100] = noise(rng, 100)
                else:
                    n = min(rng.choice([1, 50, 300, 5000]), BLKSIZE - at)
                    data[at:at + n] = noise(rng, n)
                if bytes(data) != model.get(blk, b""):
                    changes[blk] = bytes(data)
            db = DB(FileStorage(theirs))
            zfile = db.open().root()["f"]
            for blk in sorted(changes):
                zpeer.store(zfile, blk, changes[blk], FORMAT)
            transaction.commit()
            db.close()
            write(ours, changes)
            model.update(changes)
            if not compare("step %d, blocks %s" % (step, sorted(changes)), theirs, ours):
                return 1
        db = DB(FileStorage(ours, read_only=True))
        zfile = db.open().root()["f"]
        check_btree(zfile.blktab)
        zfile.blktab._check()
        for blk, data in model.items():
            assert zpeer.load(zfile, blk) == data, blk
            if FORMAT == "ZBlk1":
                check_btree(zfile.blktab[blk].chunktab)
        transaction.abort()
        db.close()
        print("ok: %d blocks" % len(model))
        return 0
    finally:
        shutil.rmtree(tmp)


def compare(step, theirs, ours):
    wanted, found = last_records(theirs), last_records(ours)
    if wanted == found:
        return True
    print("%s: %d records, not %d" % (step, len(found), len(wanted)))
    print("only zbig:  ", describe([r for r in found if r not in wanted]))
    print("only Python:", describe([r for r in wanted if r not in found]))
    return False


def create():
    """The same volumes, one after the other, in folders that are made on the way."""
    import numpy
    from persistent.mapping import PersistentMapping
    from wendelin.bigarray.array_zodb import ZBigArray
    tmp = tempfile.mkdtemp(prefix="zbig-record-sets-")
    try:
        theirs, ours = os.path.join(tmp, "theirs.fs"), os.path.join(tmp, "ours.fs")
        DB(FileStorage(theirs)).close()
        shutil.copy(theirs, ours)
        volumes = [("/a", None, 4096), ("/s", None, 2 << 20), ("/site/deep/b", None, 65536)]
        for i, (dtype, shape) in enumerate([
                ("<i8", (10,)), ("|u1", (300, 70000)), (">f4", (0,)), ("<c16", (2, 3, 4)),
                ("|b1", (1,)), ("|S5", (7,)), ("<U3", (7,)), ("|V16", (3,)),
                ("<u2", (2, 3, 4, 5, 6))]):
            volumes.append(("/site/array%d" % i, dtype, shape))
        for path, dtype, what in volumes:
            db = DB(FileStorage(theirs))
            node = db.open().root()
            names = path.strip("/").split("/")
            for name in names[:-1]:
                if name not in node:
                    node[name] = PersistentMapping()
                node = node[name]
            node[names[-1]] = ZBigArray(what, numpy.dtype(dtype)) if dtype else ZBigFile(what)
            transaction.commit()
            db.close()
            options = (["--dtype", dtype, "--shape", ",".join(map(str, what))] if dtype else
                       ["--raw", "--block-size", str(what)])
            subprocess.check_output([ZBIG, "create", ours, path] + options)
            if not compare(path, theirs, ours):
                return 1
        print("ok: %d volumes" % len(volumes))
        return 0
    finally:
        shutil.rmtree(tmp)


def write(path, changes):
    """The changes in one transaction, by zbig."""
    driver = subprocess.Popen([DRIVER, path, "/f", FORMAT], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    out, _ = driver.communicate(b"".join(
        ("%d %d\n" % (blk * BLKSIZE, len(changes[blk]))).encode() + changes[blk]
        for blk in sorted(changes)))
    assert driver.returncode == 0, out


if __name__ == "__main__":
    sys.exit(create() if FORMAT == "create" else main())
