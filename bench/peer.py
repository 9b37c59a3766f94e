# SPDX-License-Identifier: BSD-3-Clause
"""The Python originals at the work that zbig is measured by. Run with the Python of the peers.

Each verb does its work in a fresh process and prints JSON; only the part to compare is timed.

    filestorage PATH MIB          ZODB's FileStorage alone: MIB MiB as 2 MiB records, at once
    commit PATH MIB               wendelin.core: that much random data, dirty pages to committed
    patch PATH BLOCKS             one byte changed in each of BLOCKS random blocks, one commit
    pages PATH TIMES              one page changed and committed, TIMES times
    appends PATH TIMES            4 KiB appended and committed, TIMES times
    fill PATH KIND                64 MiB of blocks: `zeros`, `heads` (10 %, then zeros), `random`
    touch PATH BLOCKS             a byte of each of BLOCKS random blocks read for the first time
    open PATH                     FileStorage opened for reading and the root loaded
    read PATH                     the whole array, twice
    marks PATH TIMES              a number at the second block committed, TIMES times, 20 ms apart

PATH may be the URL of a ZEO server where an array is used.
The format is WENDELIN_CORE_ZBLK_FMT's.
"""
import json
import os
import random
import struct
import sys
import time

import transaction
from ZODB.Connection import TransactionMetaData
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage

BLOCK = 2 << 20


def filestorage(path, mib):
    from ZODB.utils import z64
    storage = FileStorage(path, create=True)
    blocks = [b'\x80\x03cwendelin.bigfile.file_zodb\nZBlk0\nq\x00.\x80\x03B' +
              struct.pack('<I', BLOCK) + os.urandom(BLOCK) + b'q\x01.' for _ in range(mib // 2)]
    start = time.perf_counter()
    meta = TransactionMetaData()
    storage.tpc_begin(meta)
    for block in blocks:
        storage.store(storage.new_oid(), z64, block, '', meta)
    storage.tpc_vote(meta)
    storage.tpc_finish(meta)
    took = time.perf_counter() - start
    storage.close()
    return {'seconds': took}


def client(url):
    from ZEO.ClientStorage import ClientStorage
    host, port = url[len('zeo://'):].split('?')[0].rsplit(':', 1)
    return ClientStorage((host, int(port)), wait_timeout=20)


class Array:
    """The ZBigArray /A of a Data.fs, made with `nbytes` bytes if it is not there."""

    def __init__(self, path, nbytes=None):
        import numpy
        from wendelin.bigarray.array_zodb import ZBigArray
        self.path = path
        self.db = DB(client(path) if path.startswith('zeo://') else FileStorage(path))
        self.root = self.db.open().root()
        if 'A' not in self.root:
            self.root['A'] = ZBigArray((nbytes,), numpy.uint8)
            transaction.commit()
        self.array = self.root['A']

    def commit(self):
        start = time.perf_counter()
        transaction.commit()
        return time.perf_counter() - start

    def size(self):
        return os.path.getsize(self.path)

    def close(self):
        self.db.close()


def commit(path, mib):
    import numpy
    a = Array(path, mib << 20)
    view = a.array[:]
    for at in range(0, mib << 20, BLOCK):
        view[at:at + BLOCK] = numpy.frombuffer(os.urandom(BLOCK), numpy.uint8)
    took = a.commit()
    a.close()
    return {'seconds': took}


def patch(path, blocks):
    a = Array(path)
    view = a.array[:]
    before = a.size()
    for block in random.Random(1).sample(range(len(view) // BLOCK), blocks):
        view[block * BLOCK + 12345] ^= 0x5a
    took = a.commit()
    return {'seconds': took, 'growth': a.size() - before}


def pages(path, times):
    import numpy
    a = Array(path)
    view = a.array[:]
    where, took = random.Random(2), []
    for _ in range(times):
        at = where.randrange(len(view) // 4096) * 4096
        view[at:at + 4096] = numpy.frombuffer(os.urandom(4096), numpy.uint8)
        took.append(a.commit())
    return {'seconds': took}


def appends(path, times):
    import numpy
    a = Array(path, times * 4096)
    view = a.array[:]
    before, took = a.size(), []
    for i in range(times):
        view[i * 4096:(i + 1) * 4096] = numpy.frombuffer(os.urandom(4096), numpy.uint8)
        took.append(a.commit())
    return {'seconds': took, 'growth': a.size() - before}


def fill(path, kind):
    import numpy
    nbytes = 64 << 20
    a = Array(path, nbytes)
    view = a.array[:]
    before = a.size()
    for at in range(0, nbytes, BLOCK):
        length = {'zeros': BLOCK, 'heads': BLOCK // 10, 'random': BLOCK}[kind]
        data = bytes(length) if kind == 'zeros' else os.urandom(length)
        view[at:at + length] = numpy.frombuffer(data, numpy.uint8)
    a.commit()
    return {'growth': a.size() - before}


def touch(path, blocks):
    a = Array(path)
    view = a.array[:]
    where, took = random.Random(3), []
    for block in where.sample(range(len(view) // BLOCK), min(blocks, len(view) // BLOCK)):
        at = block * BLOCK + where.randrange(BLOCK)
        start = time.perf_counter()
        view[at]
        took.append(time.perf_counter() - start)
    a.close()
    return {'seconds': took}


def open_(path):
    start = time.perf_counter()
    storage = FileStorage(path, read_only=True)
    storage.load(b'\0' * 8, '')
    took = time.perf_counter() - start
    return {'seconds': took}


def read(path):
    import numpy
    a = Array(path)
    view = a.array[:]
    piece, took = numpy.empty(128 << 10, numpy.uint8), []
    for _ in range(2):
        start = time.perf_counter()
        for at in range(0, len(view), len(piece)):
            piece[:len(view) - at] = view[at:at + len(piece)]
        took.append(time.perf_counter() - start)
    return {'seconds': took}


def marks(path, times):
    import numpy
    a = Array(path)
    view, committed = a.array[:], []
    for number in range(1, times + 1):
        view[BLOCK:BLOCK + 8] = numpy.frombuffer(struct.pack('<Q', number), numpy.uint8)
        transaction.commit()
        committed.append(time.monotonic())
        time.sleep(0.02)
    return {'committed': committed}


verbs = {'filestorage': filestorage, 'commit': commit, 'patch': patch, 'pages': pages,
         'appends': appends, 'fill': fill, 'touch': touch, 'open': open_,
         'read': read, 'marks': marks}
result = verbs[sys.argv[1]](*(int(a) if a.isdigit() else a for a in sys.argv[2:]))
sys.stdout.write(json.dumps(result))
sys.stdout.flush()
os._exit(0)     # the interpreter's own shutdown is not part of any figure
