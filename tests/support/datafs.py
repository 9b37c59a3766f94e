# SPDX-License-Identifier: BSD-3-Clause
"""Databases made byte by byte, to hold what no program would write.

    write_datafs(path, [[(oid, record), ...], ...])    one list a transaction

Records are put together from opcodes: record("module", "Class", state), where state is a pickle
without its header and STOP; ref, number, text, data, pair give pieces of one.
"""
import struct

FILE = "wendelin.bigfile.file_zodb"
ARRAY = "wendelin.bigarray.array_zodb"
LOBTREE = "BTrees.LOBTree"
IOBTREE = "BTrees.IOBTree"
FIRST_TID = 0x0405E70000000000  # 2026-01-01


def p64(n):
    return struct.pack(">Q", n)


def write_datafs(path, transactions):
    """Gives the tids."""
    out, tids, newest = bytearray(b"FS30"), [], {}
    for i, records in enumerate(transactions):
        tid, start = p64(FIRST_TID + (i << 32)), len(out)
        body = bytearray()
        head = 23
        for oid, record in records:
            position = start + head + len(body)
            body += p64(oid) + tid + p64(newest.get(oid, 0)) + p64(start) + b"\0\0"
            body += p64(len(record)) + record
            newest[oid] = position
        length = p64(head + len(body))
        out += tid + length + b" " + b"\0" * 6 + body + length
        tids.append(tid.hex())
    with open(path, "wb") as f:
        f.write(out)
    return tids


def record(module, name, state):
    return b"\x80\x03" + cls(module, name) + b".\x80\x03" + state + b"."


def cls(module, name):
    return ("c%s\n%s\n" % (module, name)).encode()


def ref(oid, module, name):
    return b"C\x08" + p64(oid) + cls(module, name) + b"\x86Q"


def number(n):
    body = n.to_bytes((n.bit_length() + 8) // 8, "little", signed=True) if n else b""
    return b"\x8a" + bytes([len(body)]) + body


def text(s):
    s = s.encode("utf-8")
    return b"X" + struct.pack("<I", len(s)) + s


def data(b):
    return b"B" + struct.pack("<I", len(b)) + b


def pair(a, b):
    return a + b + b"\x86"


def tuple_of(*items):
    return b"(" + b"".join(items) + b"t"


def mapping(**entries):
    """The state of a PersistentMapping."""
    items = b"".join(text(k) + v for k, v in entries.items())
    return b"}" + text("data") + b"}(" + items + b"us"


def root(**entries):
    return 0, record("persistent.mapping", "PersistentMapping", mapping(**entries))


def zbigfile(oid, blktab, blksize=4096):
    return oid, record(FILE, "ZBigFile", pair(number(blksize), ref(blktab, LOBTREE, "LOBTree")))


def lobtree(oid, entries):
    """A tree with its only bucket inside: {key: piece}."""
    items = b"".join(number(k) + v for k, v in entries.items())
    state = b"((((" + items + b"tttt" if entries else b"N"
    return oid, record(LOBTREE, "LOBTree", state)


def zblk0(oid, content):
    return oid, record(FILE, "ZBlk0", data(content))


def zblk0_ref(oid):
    return ref(oid, FILE, "ZBlk0")


def file_ref(oid):
    return ref(oid, FILE, "ZBigFile")
