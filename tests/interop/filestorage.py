# SPDX-License-Identifier: BSD-3-Clause
"""ZODB's own FileStorage, for tests/unit/filestorage_*_test.cc: filestorage.py COMMAND ...

digests read|write LIST    for each path in the file LIST: the path, and the digest of its content
digest PATH                of one file, opened for reading
commit PATH COUNT          that many commits, an aborted vote before each; prints the tid of each
undo PATH                  undoes the newest transaction that can be
pack PATH                  packs to now, without garbage collection

The digest covers every transaction (tid, status, user, description, extension) and every record of
it (oid, data): digest_of() in tests/support/filestorage_lab.h makes the same.
"""
import hashlib
import logging
import os
import sys
import time

from ZODB.FileStorage import FileStorage
from ZODB.utils import p64, z64

try:
    from ZODB.Connection import TransactionMetaData
except ImportError:  # ZODB 4
    from transaction import Transaction as TransactionMetaData

logging.disable(logging.CRITICAL)


def field(digest, data):
    digest.update(p64(len(data)))
    digest.update(data)


def extension_of(record):
    try:
        return record.extension_bytes
    except AttributeError:
        return b'' if not record.extension else repr(record.extension).encode()


def digest_of(path, read_only=True):
    storage = FileStorage(path, read_only=read_only)
    digest = hashlib.sha256()
    last = storage.getSize()
    iterator = storage.iterator()
    while iterator._pos < last:  # behind it, in a crash's tail, the iterator raises
        record = next(iterator)
        status = record.status if isinstance(record.status, bytes) else record.status.encode()
        for part in record.tid, status, record.user, record.description, extension_of(record):
            field(digest, part)
        for data in record:
            field(digest, data.oid)
            field(digest, b'(none)' if data.data is None else data.data)
    storage.close()
    return digest.hexdigest()


def store(storage, records, vote_only=False):
    meta = TransactionMetaData()
    if TransactionMetaData.__module__ == 'ZODB.Connection':
        meta = TransactionMetaData(u'py', u'by Python')
    storage.tpc_begin(meta)
    for oid, data in records:
        try:
            serial = storage.load(oid, '')[1]
        except KeyError:
            serial = z64
        storage.store(oid, serial, data, '', meta)
    storage.tpc_vote(meta)
    if vote_only:
        storage.tpc_abort(meta)
        return None
    return storage.tpc_finish(meta)


def commit(path, count):
    storage = FileStorage(path)
    for i in range(count):
        store(storage, [(p64(1), os.urandom(20000)), (storage.new_oid(), b'never')], vote_only=True)
        store(storage, [(p64(1), ('python %d' % i).encode()),
                        (p64(1000 + i), os.urandom(100 * i + 1))])
        print(''.join('%02x' % ord(c) if isinstance(c, str) else '%02x' % c
                      for c in storage.lastTransaction()))
        sys.stdout.flush()
    storage.close()


def undo(path):
    storage = FileStorage(path)
    meta = TransactionMetaData()
    storage.tpc_begin(meta)
    storage.undo(storage.undoLog(0, 1)[0]['id'], meta)
    storage.tpc_vote(meta)
    storage.tpc_finish(meta)
    storage.close()


def pack(path):
    storage = FileStorage(path)
    storage.pack(time.time() + 1, lambda data: [], gc=False)
    storage.close()


def main(command, *arguments):
    if command == 'digests':
        mode, listing = arguments
        for path in open(listing).read().split('\n'):
            if path:
                print('%s %s' % (path, digest_of(path, read_only=mode == 'read')))
    elif command == 'digest':
        print(digest_of(arguments[0]))
    elif command == 'commit':
        commit(arguments[0], int(arguments[1]))
    elif command == 'undo':
        undo(arguments[0])
    elif command == 'pack':
        pack(arguments[0])
    else:
        sys.exit('no such command: ' + command)


main(*sys.argv[1:])
