#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""`zbig check` finds every one of several defects in one database, each with its place, and finds
none where there is none."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from datafs import (FILE, LOBTREE, file_ref, number, pair, record, ref, root,  # noqa: E402
                    tuple_of, write_datafs, zbigfile, zblk0, zblk0_ref)
from zbigtest import Report, Scratch, zbig  # noqa: E402

report = Report()
BUCKET = (LOBTREE, "LOBucket")


def bucket(oid, entries, following=None):
    keys = b"(" + b"".join(number(k) + zblk0_ref(v) for k, v in entries.items()) + b"t"
    state = pair(keys, ref(following, *BUCKET)) if following else keys + b"\x85"
    return oid, record(LOBTREE, "LOBucket", state)


def tree(oid, first, *rest):
    """tree(oid, bucket, key, bucket, key, bucket...)"""
    items = [ref(first, *BUCKET)]
    for key, child in zip(rest[::2], rest[1::2]):
        items += [number(key), ref(child, *BUCKET)]
    return oid, record(LOBTREE, "LOBTree", pair(tuple_of(*items), ref(first, *BUCKET)))


def sound():
    """A file 1 of four blocks in three buckets."""
    return {1: zbigfile(1, 2), 2: tree(2, 3, 10, 4, 20, 5), 3: bucket(3, {0: 6, 1: 7}, 4),
            4: bucket(4, {10: 8}, 5), 5: bucket(5, {25: 9}),
            **{oid: zblk0(oid, b"x" * 50) for oid in (6, 7, 8, 9)}, 0: root(A=file_ref(1))}


def check(folder, records, expected):
    """The defects of a database, in words that must be in one line each; and of its volume."""
    path = os.path.join(folder, "Data.fs")
    write_datafs(path, [list(records.values())])
    result = zbig("check", path)
    lines = result.text.splitlines()[:-1]
    report.equal("status, %s" % expected, result.status, 7 if expected else 0)
    for words in expected:
        report.true("found: %s" % (words,), any(all(w in line for w in words) for line in lines),
                    result)
    told = zbig("check", path, "--json").json()
    report.equal("as JSON, %s" % expected, told["defects"], lines)
    return lines


def main():
    with Scratch() as folder:
        check(folder, sound(), [])

        broken = sound()
        broken[3] = bucket(3, {0: 6, 1: 7}, 5)  # skips a bucket
        check(folder, broken, [("/A", "0x3", "0x5")])

        broken = sound()
        broken[5] = bucket(5, {25: 9}, 3)  # a ring
        check(folder, broken, [("/A", "0x5", "names a next one")])

        broken = sound()
        broken[4] = bucket(4, {30: 8}, 5)  # a key of another bucket
        check(folder, broken, [("/A", "0x4", "key 30")])

        broken = sound()
        broken[4] = bucket(4, {}, 5)  # BTrees takes an empty bucket out
        check(folder, broken, [("/A", "0x4", "empty")])

        # Everything at once: the check goes on behind each.
        broken = sound()
        broken[7] = zblk0(7, b"x" * 5000)
        del broken[8]
        broken[9] = (9, record(FILE, "ZBlk0", number(3)))
        broken[10] = (10, b"no pickle")
        broken[0] = root(A=file_ref(1), B=file_ref(11), C=ref(10, "some", "Thing"))
        check(folder, broken, [("/A", "block 1", "5000"), ("/A", "block 10",), ("/A", "block 25",),
                               ("0x8", "does not exist"), ("0xa",),
                               ("0xb",)])

        # A revision of the past, which nobody reads any more.
        path = os.path.join(folder, "Data.fs")
        tids = write_datafs(path, [list({**sound(), 9: (9, b"no pickle")}.values()), [sound()[9]]])
        result = zbig("check", path)
        report.equal("a defect of the past: status", result.status, 7)
        report.true("a defect of the past: its tid", tids[0] in result.text, result)
        report.equal("the volume now", zbig("check", path, "/A").status, 0)
    report.done()


if __name__ == "__main__":
    main()
