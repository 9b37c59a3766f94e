"""Writes one database with the real ZODB and wendelin.core, and the manifest of what it contains.

Python 2.7 and 3. The clock is ours: the same package versions and the same seed give the same bytes
(but where one transaction writes several arrays, wendelin.core orders them by memory address: oids may swap).
A Fixture keeps its own model of every volume (block number -> bytes) and takes a copy at each commit;
`describe` reads everything back through ZBigFile.loadblk at every tid and insists on equality.
README.md in this folder describes the manifest.
"""
import binascii, hashlib, json, os, struct, sys, time

import transaction
import BTrees, ZODB, persistent
from persistent.mapping import PersistentMapping
from ZODB.DB import DB
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.format import CorruptedDataError
from ZODB.POSException import POSKeyError
from ZODB.utils import p64, u64

import zpeer
from zpeer import file_zodb, ZBigFile

HASHED_SIZE = 1 << 30           # whole contents above this are hashed by block only
RECORDS_LISTED = 3000           # transactions with more records list none


class Clock(object):
    """time.time() that stands still but for a millisecond a call; next() takes a step"""
    def __init__(self, start=1767225600.0):     # 2026-01-01
        self.now = start

    def __call__(self):
        self.now += .001
        return self.now

    def next(self, seconds=60.25):
        self.now += seconds


clock = time.time = Clock()


def noise(seed, n):
    """n bytes that depend only on the seed, no zero among them"""
    out, i = [], 0
    while sum(map(len, out)) < n:
        out.append(hashlib.sha512(('%s:%d' % (seed, i)).encode('utf-8')).digest().replace(b'\0', b'\1'))
        i += 1
        if i > 64:              # long ones repeat with a changing byte, which is quick and still not periodic
            unit = b''.join(out)
            out = [unit + struct.pack('>L', k).replace(b'\0', b'\2') for k in range(n // len(unit) + 1)]
    return b''.join(out)[:n]


class Fixture(object):
    def __init__(self, folder, case, seed):
        self.folder, self.case, self.seed = folder, case, seed
        self.path = os.path.join(folder, 'Data.fs')
        self.model = {}         # volume -> {blk: bytes}; a volume that does not exist is not in it
        self.snapshots = {}     # tid -> copy of model
        self.formats = {}       # volume -> [format names that were chosen, in order]
        self.notes = []
        self.open()

    # --- the database

    def open(self):
        self.db = DB(FileStorage(self.path))
        self.conn = self.db.open()
        self.root = self.conn.root()

    def close(self):
        transaction.abort()
        self.conn.close()
        self.db.close()

    def reopen(self):
        self.close()
        self.open()

    def commit(self, description='', user=None, extension=None):
        clock.next()
        t = transaction.get()
        if user is not None:
            t.setUser(user) if not isinstance(user, tuple) else t.setUser(*user)
        if description:
            t.note(description if not isinstance(description, bytes) else description.decode('utf-8'))
        for k, v in (extension or {}).items():
            t.setExtendedInfo(k, v)
        transaction.commit()
        return self.committed()

    def committed(self):
        """the model is what the last transaction of the database holds"""
        tid = self.db.lastTransaction()
        self.snapshots[tid] = dict((v, dict(m)) for v, m in self.model.items())
        return tid

    def rollback(self, tid):
        """the model as it was at tid (for undo)"""
        self.model = dict((v, dict(m)) for v, m in self.snapshots[tid].items())

    # --- volumes

    def volume(self, path, blksize=None, **array):
        """adds a ZBigFile of that block size, or a ZBigArray(shape, dtype, ...)"""
        names, node = path.strip('/').split('/'), self.root
        for name in names[:-1]:
            if name not in node:
                node[name] = PersistentMapping()
            node = node[name]
        if array:
            from wendelin.bigarray.array_zodb import ZBigArray
            node[names[-1]] = ZBigArray(**array)
        else:
            node[names[-1]] = ZBigFile(blksize)
        self.model[path] = {}
        return self[path]

    def __getitem__(self, path):
        return zpeer.zfile_of(zpeer.lookup(self.root, path))

    def put(self, path, blk, data, fmt=None):
        """stores a block; data shorter than one are completed with zeros"""
        zfile = self[path]
        data = data + b'\0' * (zfile.blksize - len(data))
        zpeer.store(zfile, blk, data, fmt)
        self.model[path][blk] = data
        name = fmt or getattr(file_zodb, 'ZBlk_fmt_write', 'ZBlk')
        if name not in self.formats.setdefault(path, []):
            self.formats[path].append(name)

    def patch(self, path, blk, offset, data, fmt=None):
        old = self.model[path].get(blk, b'\0' * self[path].blksize)
        self.put(path, blk, old[:offset] + data + old[offset + len(data):], fmt)

    def drop(self, path, blk):
        """removes a block, which wendelin.core itself never does"""
        del self[path].blktab[blk]
        del self.model[path][blk]

    def noise(self, tag, n):
        return noise('%s/%s/%s' % (self.seed, self.case, tag), n)


# --- the manifest

def hexed(b):
    return binascii.hexlify(b).decode()


def sha(b, n=64):
    return hashlib.sha256(b).hexdigest()[:n]


def jsonable(x):
    if isinstance(x, dict):
        return dict((str(k), jsonable(v)) for k, v in x.items())
    if isinstance(x, (list, tuple)):
        return [jsonable(v) for v in x]
    if isinstance(x, bytes):
        return x.decode('utf-8', 'replace')
    return x


def transactions(path):
    storage = FileStorage(path, read_only=True)
    result, iterator = [], iter(storage.iterator())
    while True:
        try:
            t = next(iterator)
        except (StopIteration, CorruptedDataError):     # the latter for a torn tail
            break
        records = []
        for r in t:
            records.append([hexed(r.oid), None if r.data is None else sha(r.data, 16)])
        status = t.status.decode() if isinstance(t.status, bytes) else t.status
        result.append({'tid': hexed(t.tid), 'status': status, 'user': jsonable(t.user),
                       'description': jsonable(t.description), 'extension': jsonable(t.extension),
                       'count': len(records), 'records': records if len(records) <= RECORDS_LISTED else None})
    storage.close()
    return result


def whole(zfile, blocks, size):
    """sha256 of the first `size` bytes; blocks: {number: bytes}"""
    if size > HASHED_SIZE:
        return None
    h, zero, at = hashlib.sha256(), b'\0' * (1 << 20), 0

    def zeros(n):
        while n > 0:
            h.update(zero[:n])
            n -= len(zero)
    for blk in sorted(blocks):
        start = blk * zfile.blksize
        if start >= size:
            break
        zeros(start - at)
        h.update(blocks[blk][:size - start])
        at = min(size, start + zfile.blksize)
    zeros(size - at)
    return h.hexdigest()


class Reader(object):
    """what the real classes read, remembering blocks by the serials that they were made of"""
    def __init__(self, db):
        self.db, self.cache = db, {}

    def state(self, path, tid):
        """{'exists': ...} with blocks {number: bytes or error text}, at that tid"""
        conn = self.db.open(at=tid)
        try:
            try:
                obj = zpeer.lookup(conn.root(), path)
            except (KeyError, POSKeyError):
                return None
            zfile = zpeer.zfile_of(obj)
            blocks, about = {}, {}
            for blk, zblk in zfile.blktab.items():
                key = None
                try:
                    zblk._p_activate()
                    key = (path, blk, zblk._p_oid, self.serials(zblk))
                    if key not in self.cache:
                        self.cache[key] = zpeer.load(zfile, blk)
                    blocks[blk] = self.cache[key]
                except Exception as e:
                    blocks[blk] = 'error: %s' % type(e).__name__
                about[blk] = (hexed(zblk._p_oid), 'ZBlk0' if type(zblk).__name__ == 'ZBlk' else type(zblk).__name__)
                zblk._p_deactivate()
            return obj, zfile, blocks, about
        finally:
            transaction.abort()
            conn.close()

    @staticmethod
    def serials(zblk):
        own = (zblk._p_serial,)
        chunktab = getattr(zblk, 'chunktab', None)
        if chunktab is None:
            return own
        chunktab._p_activate()
        parts = [chunktab._p_serial]
        for offset, z in chunktab.items():
            z._p_activate()
            parts.append((offset, z._p_oid, z._p_serial))
            z._p_deactivate()
        return own + (sha(repr(parts).encode()),)


def describe(folder, case, volumes, since=None, model=None, formats=None, notes=(), flavour='', damage=None):
    """writes manifest.json; model: {tid: {volume: {blk: bytes}}} to compare with"""
    path = os.path.join(folder, 'Data.fs')
    log = transactions(path)
    storage = FileStorage(path, read_only=True)
    db = DB(storage)
    reader = Reader(db)
    tids = [t['tid'] for t in log if since is None or t['tid'] >= since]
    entries = []
    for volume in volumes:
        states, last, about_last, previous = [], {}, {}, None
        entry = {'path': volume, 'formats': (formats or {}).get(volume, [])}
        for tid in tids:
            raw = binascii.unhexlify(tid)
            got = reader.state(volume, raw)
            wanted = (model or {}).get(raw)
            if got is None:
                assert wanted is None or volume not in wanted, (case, volume, tid, 'missing')
                if previous is not None:
                    states.append({'tid': tid, 'exists': False})
                    last, about_last, previous = {}, {}, None
                continue
            obj, zfile, blocks, about = got
            if wanted is not None:
                assert blocks == wanted[volume], (case, volume, tid, sorted(
                    k for k in set(blocks) | set(wanted[volume]) if blocks.get(k) != wanted[volume].get(k))[:9])
            entry.update(oid=hexed(obj._p_oid), zfile=hexed(zfile._p_oid), blksize=zfile.blksize,
                         blktab=hexed(zfile.blktab._p_oid))
            entry['class'] = type(obj).__name__
            eof = (max(blocks) + 1) * zfile.blksize if blocks else 0
            state = {'tid': tid, 'eof': eof, 'nblocks': len(blocks)}
            size = eof
            if obj is not zfile:
                size = int(obj.nbytes)
                state.update(dtype=jsonable(obj.dtype.descr if obj.dtype.names else obj.dtype.str),
                             shape=[int(n) for n in obj.shape], order=obj._order)
            bad = sorted(k for k in blocks if not isinstance(blocks[k], bytes) or blocks[k][:7] == b'error: ')
            state['size'] = size
            state['sha256'] = None if bad else whole(zfile, blocks, size)
            if size % 4096:
                state['device_sha256'] = None if bad else whole(zfile, blocks, size + -size % 4096)
            changed = {}
            for blk in sorted(set(blocks) | set(last)):
                if blocks.get(blk) != last.get(blk) or about.get(blk) != about_last.get(blk):
                    if blk not in blocks:
                        changed[blk] = None
                    elif blk in bad:
                        changed[blk] = [str(blocks[blk])] + list(about[blk])[::-1]
                    else:
                        changed[blk] = [sha(blocks[blk], 16)] + list(about[blk])[::-1]
            state['blocks'] = changed
            if previous is None or changed or any(
                    state.get(k) != previous.get(k) for k in ('size', 'eof', 'dtype', 'shape')):
                states.append(state)
            last, about_last, previous = blocks, about, state
        entry['states'] = states
        entries.append(entry)
    db.close()
    with open(path, 'rb') as f:
        data = f.read()
    manifest = {
        'case': case, 'notes': list(notes), 'file': {'name': 'Data.fs', 'size': len(data), 'sha256': sha(data)},
        'made_by': dict(python=sys.version.split()[0], **dict((n, version(n)) for n in (
            'ZODB', 'BTrees', 'persistent', 'wendelin.core'))),
        'magic': data[:4].decode(), 'since': since, 'last_tid': log[-1]['tid'] if log else None,
        'transactions': log, 'volumes': entries}
    if flavour:
        manifest['made_by']['wendelin.core'] = flavour
    if damage:
        manifest['damage'] = damage(path)
    write_manifest(folder, manifest)
    return manifest


def version(name):
    import pkg_resources
    try:
        return pkg_resources.get_distribution(name).version
    except Exception:
        return None


def write_manifest(folder, manifest):
    """JSON with a line per transaction, volume head and state"""
    def dump(x):
        return json.dumps(x, sort_keys=True, separators=(',', ':'))
    m = dict(manifest)
    log, volumes = m.pop('transactions'), m.pop('volumes')
    out = ['{' + dump(m)[1:-1] + ',', '"transactions":[', ',\n'.join(map(dump, log)), '],', '"volumes":[']
    parts = []
    for v in volumes:
        v = dict(v)
        states = v.pop('states')
        parts.append('{' + dump(v)[1:-1] + ',"states":[\n' + ',\n'.join(map(dump, states)) + ']}')
    out += [',\n'.join(parts), ']}']
    with open(os.path.join(folder, 'manifest.json'), 'w') as f:
        f.write('\n'.join(out) + '\n')
