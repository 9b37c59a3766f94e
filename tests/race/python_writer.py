# SPDX-License-Identifier: BSD-3-Clause
"""A Python program that takes part in the race, through ZBigFile and ZODB's own client.

    python_writer.py URL VOLUME...

Reads commands from standard input, one a line, and answers each with a line. PLACE is
VOLUME_NUMBER:OFFSET, WORD a number of 64 bits, in memory little-endian:

    begin                   the tid of the state that is seen from here on
    read PLACE...           the words there
    write WORD PLACE...     "written"
    commit                  the tid, or "conflict"
"""
from __future__ import print_function
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peers"))
import transaction  # noqa: E402
from ZODB.DB import DB  # noqa: E402
from ZODB.POSException import ConflictError  # noqa: E402
from ZODB.utils import p64, u64  # noqa: E402
import zpeer  # noqa: E402

db = DB(zpeer.open_storage(sys.argv[1]))
connection = db.open()
zfiles = [zpeer.zfile_of(zpeer.lookup(connection.root(), path)) for path in sys.argv[2:]]

# ZODB tells nobody the tid of what was committed.
finished = []
storage_finish = connection._storage.tpc_finish


def finish(*args, **named):
    tid = storage_finish(*args, **named)
    finished.append(tid)
    return tid


connection._storage.tpc_finish = finish


def places(words):
    for word in words:
        volume, offset = word.split(":")
        zfile = zfiles[int(volume)]
        block, at = divmod(int(offset), zfile.blksize)
        yield zfile, block, at


def begin():
    transaction.abort()
    transaction.begin()
    # The connection sees what is before this.
    return zpeer.hexed(p64(u64(connection._storage._start) - 1))


def read(*where):
    return " ".join(str(struct.unpack_from("<Q", zpeer.load(zfile, block), at)[0])
                    for zfile, block, at in places(where))


def write(word, *where):
    data = struct.pack("<Q", int(word))
    for zfile, block, at in places(where):
        zpeer.write(zfile, block * zfile.blksize + at, data)
    return "written"


def commit():
    try:
        transaction.commit()
    except ConflictError:
        transaction.abort()
        return "conflict"
    return zpeer.hexed(finished[-1])


COMMANDS = {"begin": begin, "read": read, "write": write, "commit": commit}

for line in iter(sys.stdin.readline, ""):
    words = line.split()
    print(COMMANDS[words[0]](*words[1:]))
    sys.stdout.flush()
transaction.abort()
