#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Databases that hold what no program would write: a clear line and exit status 7, in little time
and memory.

Every row is a database of a few records, one of them hostile. zbig runs with 1 GiB of address
space and 20 seconds.
"""
import os
import resource
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from datafs import (ARRAY, FILE, IOBTREE, LOBTREE, data, file_ref, lobtree, mapping,  # noqa: E402
                    number, p64, pair, record, ref, root, text, tuple_of, write_datafs, zbigfile,
                    zblk0, zblk0_ref)
from zbigtest import ZBIG, Report, Result, Scratch  # noqa: E402

report = Report()
MAPPING = ("persistent.mapping", "PersistentMapping")


def limited():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def zbig(*arguments):
    done = subprocess.run([ZBIG, *arguments], capture_output=True, timeout=20, check=False,
                          preexec_fn=limited)
    return Result(arguments, done.returncode, done.stdout, done.stderr)


# --- the root object

def hostile_roots():
    """(name, record of the root)"""
    head = b"\x80\x03cpersistent.mapping\nPersistentMapping\n."
    yield "empty record", b"\x80"
    yield "no state", head
    yield "bytes of 4 GiB", head + b"\x80\x03B\xff\xff\xff\xff."
    yield "text of 4 GiB", head + b"\x80\x03X\xff\xff\xff\xff."
    yield "negative length", head + b"\x80\x02T\xff\xff\xff\xff."
    yield "long of 2 GiB", head + b"\x80\x03\x8b\xff\xff\xff\x7f."
    yield "a million marks", head + b"\x80\x03" + b"(" * 1000000 + b"."
    yield "a million nested lists", head + b"\x80\x03" + b"(" * 1000000 + b"l" * 1000000 + b"."
    yield "tuples doubled 60 times", head + b"\x80\x03)" + b"q\x00h\x00\x86" * 60 + b"."
    yield "memo index of 4 billion", head + b"\x80\x03}r\xff\xff\xff\xff."
    yield "memo that was never set", head + b"\x80\x03h\x63."
    yield "empty stack", head + b"\x80\x03s."
    yield "no stop", head + b"\x80\x03" + b"N" * 1000
    yield "unknown opcode", head + b"\x80\x03\xff."
    yield "list in itself", head + b"\x80\x03}X\x04\x00\x00\x00data]q\x00h\x00as."
    yield "dict in itself", head + b"\x80\x03}q\x00X\x04\x00\x00\x00datah\x00s."
    yield "data is a number", record(*MAPPING, b"}" + text("data") + number(7) + b"s")
    yield "state is a number", record(*MAPPING, number(7))
    yield "protocol 200", b"\x80\xc8N."


# --- volumes: /A is an object of oid 1

def file_with(blktab_record, *more, blksize=4096):
    return [root(A=file_ref(1)), zbigfile(1, 2, blksize), (2, blktab_record), *more]


def tree(state):
    return record(LOBTREE, "LOBTree", state)


def tree_ref(oid):
    return ref(oid, LOBTREE, "LOBTree")


def array(shape, dtype=b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x88\x88\x87R"):
    state = (b"(}" + text("_dtype") + dtype + b"s" + text("_shape") + shape + b"s" +
             text("_order") + text("C") + b"s}" + text("zfile") + ref(2, FILE, "ZBigFile") + b"st")
    return [root(A=ref(1, ARRAY, "ZBigArray")), (1, record(ARRAY, "ZBigArray", state)),
            zbigfile(2, 3), lobtree(3, {})]


def hostile_volumes():
    """(name, records of the database)"""
    block = zblk0(3, b"x" * 100)
    one = lobtree(2, {0: zblk0_ref(3)})[1]
    yield "block size 0", file_with(one, block, blksize=0)
    yield "block size -4096", file_with(one, block, blksize=-4096)
    yield "block size 2^62", file_with(one, block, blksize=1 << 62)
    yield "block size 2^100", file_with(one, block, blksize=1 << 100)
    yield "block size is text", [root(A=file_ref(1)), (1, record(
        FILE, "ZBigFile", pair(text("x"), tree_ref(2)))), (2, one), block]
    yield "state of the file is None", [root(A=file_ref(1)), (1, record(FILE, "ZBigFile", b"N"))]
    yield "no block table", [root(A=file_ref(1)), zbigfile(1, 2)]
    yield "the file is missing", [root(A=file_ref(1))]
    yield "block table is the file", [root(A=file_ref(1)), zbigfile(1, 1)]
    yield "block table in itself", file_with(tree(
        pair(tuple_of(tree_ref(2), number(5), tree_ref(2)), tree_ref(2))))
    yield "chain of tables", file_with(
        tree(pair(tree_ref(4) + b"\x85", ref(9, LOBTREE, "LOBucket"))),
        *[(i, tree(pair(tree_ref(i + 1) + b"\x85", ref(9, LOBTREE, "LOBucket"))))
          for i in range(4, 200)])
    yield "keys out of order", file_with(lobtree(2, {5: zblk0_ref(3), 4: zblk0_ref(3)})[1], block)
    yield "negative block", file_with(lobtree(2, {-1: zblk0_ref(3)})[1], block)
    yield "block 2^62", file_with(lobtree(2, {1 << 62: zblk0_ref(3)})[1], block)
    yield "key is text", file_with(tree(b"((((" + text("x") + zblk0_ref(3) + b"tttt"), block)
    yield "the block is missing", file_with(one)
    yield "the block is a mapping", file_with(one, (3, record(*MAPPING, mapping())))
    yield "block longer than its size", file_with(one, zblk0(3, b"x" * 4097))
    yield "block is a number", file_with(one, (3, record(FILE, "ZBlk0", number(7))))
    yield "block length runs past the record", file_with(one, (
        3, b"\x80\x03c" + FILE.encode() + b"\nZBlk0\n.\x80\x03B\x00\x10\x00\x00abc."))
    chunked = lobtree(2, {0: ref(3, FILE, "ZBlk1")})[1]
    zblk1 = (3, record(FILE, "ZBlk1", ref(4, IOBTREE, "IOBTree")))

    def chunks(entries):
        items = b"".join(number(k) + ref(5, FILE, "ZData") for k in entries)
        return 4, record(IOBTREE, "IOBTree", b"((((" + items + b"tttt")
    zdata = (5, record(FILE, "ZData", data(b"y" * 100)))
    yield "chunk past the block", file_with(chunked, zblk1, chunks([4096]), zdata)
    yield "chunk runs past the block", file_with(chunked, zblk1, chunks([4000]), zdata)
    yield "chunks overlap", file_with(chunked, zblk1, chunks([0, 50]), zdata)
    yield "negative chunk", file_with(chunked, zblk1, chunks([-4096]), zdata)
    yield "no chunk", file_with(chunked, zblk1, chunks([0]))
    yield "chunk table is a block table", file_with(chunked, zblk1, lobtree(4, {}))
    yield "chunk table is the ZBlk1", file_with(chunked, (3, record(
        FILE, "ZBlk1", ref(3, IOBTREE, "IOBTree"))))
    yield "bomb of zlib", file_with(one, (3, b".z" + bomb()))
    yield "no zlib", file_with(one, (3, b".zabc"))
    yield "shape of 2^40 x 2^40", array(pair(number(1 << 40), number(1 << 40)))
    yield "negative shape", array(pair(number(-1), number(4)))
    yield "shape of text", array(text("x"))
    yield "dtype of nothing", array(number(4) + b"\x85", b"N")


def bomb():
    """1 GiB of zeros in 1 MiB."""
    import zlib
    packer = zlib.compressobj(9)
    zeros = bytes(1 << 20)
    return b"".join(packer.compress(zeros) for _ in range(1024)) + packer.flush()


def judge(what, result, statuses):
    error = result.err.decode("utf-8", "replace")
    report.true(what + ": status", result.status in statuses, result)
    if result.status:
        report.true(what + ": clear lines", all(
            line.startswith("zbig: ") or i == len(error.split("\n")) - 2
            for i, line in enumerate(error.split("\n")[:-1])), error)
        report.true(what + ": no more than a few", 1 <= error.count("\n") <= 3 or
                    result.arguments[0] in ("ls", "check"), error)


def main():
    with Scratch() as folder:
        path = os.path.join(folder, "Data.fs")
        for name, state in hostile_roots():
            write_datafs(path, [[(0, state)]])
            unknown = (1, 7) if name == "protocol 200" else (7,)
            judge("root: %s: ls" % name, zbig("ls", path), unknown)
            judge("root: %s: info" % name, zbig("info", path, "/A"), unknown)
            judge("root: %s: check" % name, zbig("check", path), (7,))
        for name, records in hostile_volumes():
            write_datafs(path, [records])
            judge("volume: %s: ls" % name, zbig("ls", path), (0, 7))
            judge("volume: %s: check" % name, zbig("check", path), (7,))
            judge("volume: %s: export" % name, zbig("export", path, "/A", "-o",
                                                    os.path.join(folder, "out")), (7, 1))
            report.true("volume: %s: no file" % name, not os.path.exists(
                os.path.join(folder, "out")))
        # A sound database of the same making is read.
        write_datafs(path, [[root(A=file_ref(1)), zbigfile(1, 2), lobtree(2, {0: zblk0_ref(3)}),
                             zblk0(3, b"x" * 100)]])
        sound = zbig("check", path)
        report.true("a sound one", sound.status == 0, sound)
        report.equal("a sound one: content", zbig("export", path, "/A").out,
                     b"x" * 100 + b"\0" * 3996)
    report.done()


if __name__ == "__main__":
    main()
