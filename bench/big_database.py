# SPDX-License-Identifier: BSD-3-Clause
"""Appends COUNT small objects to a Data.fs, and writes its index: `big_database.py PATH COUNT`.

Through FileStorage ten million objects would take an hour, so the bytes are laid out here, 10 000
objects a transaction, by numpy; the layout is docs/formats/filestorage.md. The objects get oids
above all others.
"""
import os
import struct
import sys

import numpy
from ZODB.FileStorage import FileStorage
from ZODB.fsIndex import fsIndex

path, count = sys.argv[1], int(sys.argv[2])
storage = FileStorage(path)
last_tid = struct.unpack('>Q', storage.lastTransaction())[0]
index = storage._index
first_oid = struct.unpack('>Q', index.maxKey())[0] + 1
end = storage.getSize()
entries = [(key, index[key]) for key in index]
storage.close()

data = (b'\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.'
        b'\x80\x03}q\x01X\x04\x00\x00\x00dataq\x02}q\x03s.')
record = numpy.dtype([('oid', '>u8'), ('tid', '>u8'), ('prev', '>u8'), ('tloc', '>u8'),
                      ('vlen', '>u2'), ('plen', '>u8'), ('data', 'S%d' % len(data))])
assert record.itemsize == 42 + len(data)
batch, header = 10000, 23
positions = numpy.empty(count, 'u8')
with open(path, 'ab') as out:
    for start in range(0, count, batch):
        n = min(batch, count - start)
        last_tid += 1
        length = header + n * record.itemsize
        rows = numpy.zeros(n, record)
        rows['oid'] = numpy.arange(first_oid + start, first_oid + start + n)
        rows['tid'], rows['tloc'], rows['plen'] = last_tid, end, len(data)
        body = numpy.frombuffer(rows.tobytes(), 'u1').reshape(n, record.itemsize).copy()
        body[:, 42:] = numpy.frombuffer(data, 'u1')
        out.write(struct.pack('>QQcHHH', last_tid, length, b' ', 0, 0, 0))
        out.write(body.tobytes())
        out.write(struct.pack('>Q', length))
        positions[start:start + n] = end + header + numpy.arange(n) * record.itemsize
        end += length + 8

# The index: for every prefix of 6 bytes of the oid the suffixes, then the positions (fsIndex.save).
oids = numpy.concatenate([numpy.array([struct.unpack('>Q', k)[0] for k, _ in entries], 'u8'),
                          numpy.arange(first_oid, first_oid + count, dtype='u8')])
where = numpy.concatenate([numpy.array([p for _, p in entries], 'u8'), positions])
order = numpy.argsort(oids)
oids, where = oids[order], where[order]


def pickled(payload):
    if len(payload) < 256:
        return b'C' + bytes([len(payload)]) + payload
    return b'B' + struct.pack('<I', len(payload)) + payload


def pickled_int(n):
    if n < 1 << 31:
        return b'J' + struct.pack('<i', n)
    body = n.to_bytes((n.bit_length() + 8) // 8, 'little')
    return b'\x8a' + bytes([len(body)]) + body


with open(path + '.index', 'wb') as out:
    out.write(b'\x80\x03' + pickled_int(end) + b'.')
    prefixes = oids >> 16
    starts = numpy.flatnonzero(numpy.concatenate([[True], prefixes[1:] != prefixes[:-1]]))
    for begin, stop in zip(starts, list(starts[1:]) + [len(oids)]):
        suffixes = (oids[begin:stop] & 0xffff).astype('>u2').tobytes()
        places = where[begin:stop].astype('>u8').view('u1').reshape(-1, 8)[:, 2:].tobytes()
        prefix = struct.pack('>Q', int(prefixes[begin]))[2:]
        out.write(b'\x80\x03' + pickled(prefix) + pickled(suffixes + places) + b'\x86.')
    out.write(b'\x80\x03N.')
assert len(fsIndex.load(path + '.index')['index']) == len(oids)
