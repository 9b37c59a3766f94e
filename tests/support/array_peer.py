# SPDX-License-Identifier: BSD-3-Clause
"""A Python program that keeps a ZBigArray of bytes open and mapped, as tests' other side.

    array_peer.py URL PATH

Reads commands from standard input, one a line, and answers each with a line (as held_mapping.c):

    read OFFSET LENGTH            the bytes there, in a new transaction
    await OFFSET TEXT SECONDS     milliseconds until TEXT was there, or "never"
    fresh OFFSET TEXT SECONDS     the same, each look by a client of its own
    change OFFSET TEXT            "changed", in the transaction that is open
    commit                        the tid, or "conflict"
    fill FIRST COUNT TEXT         commits TEXT at the beginning of so many blocks; the tid
    series OFFSET COUNT           commits the numbers 1 to COUNT there, of four digits; conflicts
    replace BLOCK TEXT            commits another object in place of the block's; the tid
    forget                        "forgotten": all that ZODB had cached of the database
"""
from __future__ import print_function
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peers"))
import transaction  # noqa: E402
from ZODB.DB import DB  # noqa: E402
from ZODB.POSException import ConflictError  # noqa: E402
from wendelin.bigfile.file_zodb import ZBlk0  # noqa: E402
import zpeer  # noqa: E402

db = DB(zpeer.open_storage(sys.argv[1]))
connection = db.open()
array = zpeer.lookup(connection.root(), sys.argv[2])


def look(of, offset, length):
    return of[offset:offset + length].tobytes()


def begin():
    transaction.abort()
    transaction.begin()


def read(offset, length):
    begin()
    return look(array, int(offset), int(length)).replace(b"\0", b"").decode()


def wait_until(seconds, done):
    start = time.time()
    while not done():
        if time.time() - start > float(seconds):
            return "never"
        time.sleep(0.002)
    return "%.1f" % (1000 * (time.time() - start))


def await_kept(offset, text, seconds):
    def done():
        begin()
        return look(array, int(offset), len(text)) == text.encode()
    return wait_until(seconds, done)


def fresh(offset, text, seconds):
    def done():
        own = DB(zpeer.open_storage(sys.argv[1], read_only=True))
        try:
            root = own.open(transaction_manager=transaction.TransactionManager()).root()
            return look(zpeer.lookup(root, sys.argv[2]), int(offset), len(text)) == text.encode()
        finally:
            own.close()
    return wait_until(seconds, done)


def change(offset, text):
    import numpy
    array[int(offset):int(offset) + len(text)] = numpy.frombuffer(text.encode(), "u1")
    return "changed"


def commit():
    try:
        transaction.commit()
    except ConflictError:
        transaction.abort()
        return "conflict"
    return zpeer.hexed(db.lastTransaction())


def fill(first, count, text):
    begin()
    for block in range(int(first), int(first) + int(count)):
        change(block * array.zfile.blksize, text)
    return commit()


def series(offset, count):
    conflicts = 0
    for number in range(1, int(count) + 1):
        while True:
            begin()
            change(offset, "%04d" % number)
            if commit() != "conflict":
                break
            conflicts += 1
    return conflicts


def replace(block, text):
    begin()
    zfile, block = array.zfile, int(block)
    buf = bytearray(zpeer.load(zfile, block))
    buf[:len(text)] = text.encode()
    other = ZBlk0()
    zfile.blktab[block] = other
    other.bindzfile(zfile, block)
    other.setblkdata(buf)
    return commit()


def forget():
    begin()
    connection.cacheMinimize()
    return "forgotten"


COMMANDS = {"read": read, "await": await_kept, "fresh": fresh, "change": change, "commit": commit,
            "fill": fill, "series": series, "replace": replace, "forget": forget}

print("ready")
sys.stdout.flush()
for line in iter(sys.stdin.readline, ""):
    words = line.split()
    print(COMMANDS[words[0]](*words[1:]))
    sys.stdout.flush()
transaction.abort()
