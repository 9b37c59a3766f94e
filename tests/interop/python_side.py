# SPDX-License-Identifier: BSD-3-Clause
"""The real Python side of interop tests: wendelin.core's own classes on ZODB's own storage.

Run with the Python of a peer environment (2.7 or 3). Reads a request a line on standard input,
JSON, and answers each with a line of JSON; the database is opened for one request and closed again,
so that zbig can have it in between. Bytes travel as hex.
"""
from __future__ import print_function
import binascii
import contextlib
import hashlib
import io
import json
import os
import sys
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peers"))
import transaction  # noqa: E402
from persistent.mapping import PersistentMapping  # noqa: E402
from ZODB.DB import DB  # noqa: E402
from BTrees.check import check as check_btree  # noqa: E402
import zpeer  # noqa: E402
from wendelin.bigfile.file_zodb import ZBigFile, ZBlk1  # noqa: E402


@contextlib.contextmanager
def connection(url, read_only=False, at=None):
    db = DB(zpeer.open_storage(url, read_only=read_only))
    try:
        conn = db.open(**({"at": binascii.unhexlify(at)} if at else {}))
        try:
            yield db, conn
        finally:
            transaction.abort()
            conn.close()
    finally:
        db.close()


def commit(db, request):
    t = transaction.get()
    if request.get("user"):
        t.setUser(u"" + request["user"])
    t.note(u"" + request.get("message", ""))
    transaction.commit()
    return zpeer.hexed(db.lastTransaction())


def content(obj):
    """All bytes of a volume, through loadblk; as zbig counts them."""
    info = zpeer.info(obj)
    zfile = zpeer.zfile_of(obj)
    size = info.get("nbytes", info["size"])
    out = bytearray(size)
    for blk in zfile.blktab.keys():
        start = blk * zfile.blksize
        if start < size:
            part = zpeer.load(zfile, blk)[:size - start]
            out[start:start + len(part)] = part
    return bytes(out)


def create(request):
    with connection(request["url"]) as (db, conn):
        node = conn.root()
        names = request["path"].strip("/").split("/")
        for name in names[:-1]:
            if name not in node:
                node[name] = PersistentMapping()
            node = node[name]
        if request.get("dtype"):
            import numpy
            from wendelin.bigarray.array_zodb import ZBigArray
            node[names[-1]] = ZBigArray(tuple(request["shape"]), numpy.dtype(request["dtype"]))
        else:
            node[names[-1]] = ZBigFile(request["blksize"])
        return commit(db, request)


def write(request):
    """writes: [path, offset, hex, format], through storeblk as the mmap layer calls it"""
    with connection(request["url"]) as (db, conn):
        for path, offset, data, fmt in request["writes"]:
            zfile = zpeer.zfile_of(zpeer.lookup(conn.root(), path))
            zpeer.write(zfile, offset, binascii.unhexlify(data), fmt)
        return commit(db, request)


def mapped(request):
    """the bytes of an array through wendelin.core's memory mapping; with "data", changed there"""
    import numpy
    with connection(request["url"]) as (db, conn):
        array = zpeer.lookup(conn.root(), request["path"])
        view = array[:].reshape(-1, order="A").view(numpy.uint8)  # no copy, in either order
        if "data" in request:
            data = numpy.frombuffer(binascii.unhexlify(request["data"]), dtype=numpy.uint8)
            view[request["offset"]:request["offset"] + len(data)] = data
            return commit(db, request)
        return hashlib.sha256(view.tobytes()).hexdigest()


def delete(request):
    with connection(request["url"]) as (db, conn):
        zfile = zpeer.zfile_of(zpeer.lookup(conn.root(), request["path"]))
        del zfile.blktab[request["block"]]
        return commit(db, request)


def digests(request):
    """[size, SHA-256] of each path at each tid; null where it does not exist"""
    out = {}
    db = DB(zpeer.open_storage(request["url"], read_only=True))
    try:
        for tid in request["tids"]:
            conn = db.open(at=binascii.unhexlify(tid))
            state = out[tid] = {}
            for path in request["paths"]:
                try:
                    obj = zpeer.lookup(conn.root(), path)
                except KeyError:
                    state[path] = None
                    continue
                data = content(obj)
                state[path] = [len(data), hashlib.sha256(data).hexdigest()]
            transaction.abort()
            conn.close()
    finally:
        db.close()
    return out


def check(request):
    """What ZODB's and BTrees' own checkers say against the file: a list of sentences."""
    problems = []
    path = request["url"]
    from ZODB.scripts import fstest
    try:
        fstest.check(path)
    except Exception as e:
        problems.append("fstest: %r" % e)
    with connection(path, read_only=True) as (_, conn):
        for name in request["paths"]:
            zfile = zpeer.zfile_of(zpeer.lookup(conn.root(), name))
            trees = [zfile.blktab] + [zblk.chunktab for zblk in zfile.blktab.values()
                                      if isinstance(zblk, ZBlk1)]
            for tree in trees:
                try:
                    tree._check()
                    check_btree(tree)
                except Exception as e:
                    problems.append("%s: BTrees: %r" % (name, e))
    from ZODB.scripts import fsrefs
    said = io.StringIO() if sys.version_info[0] > 2 else io.BytesIO()
    stdout, sys.stdout = sys.stdout, said
    try:
        fsrefs.main(path)
    except Exception as e:
        problems.append("fsrefs: %r" % e)
    finally:
        sys.stdout = stdout
    if said.getvalue().strip():
        problems.append("fsrefs: " + said.getvalue())
    return problems


def main():
    replies = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not get between
    verbs = {f.__name__: f for f in (create, write, mapped, delete, digests, check)}
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        try:
            answer = {"ok": verbs[request["op"]](request)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        replies.write(json.dumps(answer) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
