# SPDX-License-Identifier: BSD-3-Clause
"""The BTrees package, for tests/unit/btree_peer_test.cc: btrees.py COMMAND ...

make PATH POOL             a database with an empty LOBTree at root['t'], and POOL objects to be its
                           values; prints the oid of the tree, then those of the values
edit PATH OPS LEAF INNER   does what the file OPS says with nodes of at most LEAF keys and INNER
                           children: `s KEY VALUE`, `d KEY`, `c` (clear), `.` (commit). Prints for
                           each commit its tid, and the oids that it checks to be current
check PATH TID...          BTrees' own checkers at each tid; prints the items at each
"""
import sys

import transaction
from BTrees.LOBTree import LOBTree
from BTrees.check import check
from persistent.mapping import PersistentMapping
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage
from ZODB.utils import u64


def make(path, pool):
    db = DB(FileStorage(path))
    root = db.open().root()
    root['t'] = LOBTree()
    root['pool'] = PersistentMapping((i, PersistentMapping()) for i in range(int(pool)))
    transaction.commit()
    print(u64(root['t']._p_oid))
    for i in range(int(pool)):
        print(u64(root['pool'][i]._p_oid))
    db.close()


def edit(path, ops, leaf, inner):
    LOBTree.max_leaf_size = int(leaf)
    LOBTree.max_internal_size = int(inner)
    db = DB(FileStorage(path))
    connection = db.open()
    tree, pool = connection.root()['t'], connection.root()['pool']
    for line in open(ops):
        op = line.split()
        if op[0] == 's':
            tree[int(op[1])] = pool[int(op[2])]
        elif op[0] == 'd':
            del tree[int(op[1])]
        elif op[0] == 'c':
            tree.clear()
        else:
            stored = {obj._p_oid for obj in connection._registered_objects}
            checked = sorted(u64(oid) for oid in connection._readCurrent if oid not in stored)
            transaction.commit()
            print(u64(db.storage.lastTransaction()), *checked)
    db.close()


def check_at(path, *tids):
    db = DB(FileStorage(path, read_only=True))
    for tid in tids:
        connection = db.open(at=int(tid).to_bytes(8, 'big'))
        tree = connection.root()['t']
        tree._check()
        check(tree)
        print(*('%d:%d' % (key, u64(value._p_oid)) for key, value in tree.items()))
        connection.close()
    db.close()


{'make': make, 'edit': edit, 'check': check_at}[sys.argv[1]](*sys.argv[2:])
