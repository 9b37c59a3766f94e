# Makes databases with the real wendelin.core (Python 2.7 or 3.9 of ../../peers), and says what they hold.
#   make.py OUT SEED      writes OUT/NAME.fs and OUT/manifest.json
# What each volume must hold is computed by a model of its own (a dict of blocks), never read back from
# wendelin.core; at the end wendelin.core reads everything back too, and must agree.
from __future__ import print_function
import binascii, datetime, hashlib, io, json, os, random, shutil, struct, sys
import numpy, transaction, ZODB.FileStorage, ZODB.DB
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from wendelin.bigfile import file_zodb as wc
from wendelin.bigfile.file_zodb import ZBigFile, ZBlk0, ZBlk1, ZData
from wendelin.bigarray.array_zodb import ZBigArray

PY3 = sys.version_info[0] == 3
out, seed = sys.argv[1], int(sys.argv[2])
rng = random.Random(seed)
if not os.path.isdir(out): os.makedirs(out)
manifest = {'python': sys.version.split()[0], 'seed': seed, 'databases': {}}
hexid = lambda b: binascii.hexlify(b).decode()
sha = lambda b: hashlib.sha256(b).hexdigest()
WHOLE = 64 << 20            # volumes up to this size have the hash of their whole content


def noise(n):               # n bytes, none of them zero
    return bytes(bytearray(rng.randrange(1, 256) for _ in range(n)))


class Volume(object):
    """Model of one volume: blocks written so far, and its size."""
    def __init__(self, db, path, zfile, size=None):
        self.db, self.path, self.zfile, self.fixed = db, path, zfile, size
        self.blksize, self.blocks = zfile.blksize, {}

    def store(self, blk, data, fmt='ZBlk0'):
        data = data.ljust(self.blksize, b'\0')
        assert len(data) == self.blksize
        self.blocks[blk] = data
        wc.ZBlk_fmt_write = fmt
        self.zfile.storeblk(blk, bytearray(data) if PY3 else buffer(data))  # noqa

    def delete(self, blk):
        del self.blocks[blk]
        del self.zfile.blktab[blk]

    def edit(self, blk, off, data, fmt):
        old = self.blocks.get(blk, b'\0' * self.blksize)
        self.store(blk, old[:off] + data + old[off + len(data):], fmt)

    def size(self):
        if self.fixed is not None: return self.fixed
        return (max(self.blocks) + 1) * self.blksize if self.blocks else 0

    def state(self):
        size, s = self.size(), {}
        s['size'] = size
        if size <= WHOLE:
            content = bytearray(size)
            for b, d in self.blocks.items():
                content[b * self.blksize:(b + 1) * self.blksize] = d[:max(0, size - b * self.blksize)]
            s['sha256'] = sha(bytes(content))
        return s


class Database(object):
    def __init__(self, name, wrap=None):
        self.name, self.file = name, os.path.join(out, name + '.fs')
        for suffix in ('', '.index', '.lock', '.tmp', '.old'):
            if os.path.exists(self.file + suffix): os.remove(self.file + suffix)
        self.storage = ZODB.FileStorage.FileStorage(self.file)
        if wrap: self.storage = wrap(self.storage)
        self.db = ZODB.DB(self.storage)
        self.conn = self.db.open()
        self.root = self.conn.root()
        self.volumes, self.states, self.models = {}, [], []

    def file_at(self, path, blksize, holder=None, key=None):
        z = ZBigFile(blksize)
        holder = self.root if holder is None else holder
        holder[key or path.strip('/')] = z
        v = self.volumes[path] = Volume(self, path, z)
        return v

    def array_at(self, path, shape, dtype, order='C', blksize=None, holder=None, key=None):
        a = ZBigArray(shape, numpy.dtype(dtype), order=order, **({'blksize': blksize} if blksize else {}))
        (self.root if holder is None else holder)[key or path.strip('/')] = a
        n = int(numpy.prod(shape)) * numpy.dtype(dtype).itemsize
        v = self.volumes[path] = Volume(self, path, a.zfile, n)
        v.array = dict(dtype=numpy.dtype(dtype).str, shape=list(shape), order=order)
        return v

    def commit(self, user=u'', note=u'', **extension):
        t = transaction.get()
        t.user, t.description = (user, note) if PY3 else (user.encode('utf8'), note.encode('utf8'))
        if user and hasattr(t, 'setUser') and not PY3: t.setUser(user)
        if not PY3: t.user, t.description = user, note
        for k, x in extension.items(): t.setExtendedInfo(k, x)
        transaction.commit()
        self.snap(user, note)

    def snap(self, user=u'', note=u''):
        self.models.append(dict((p, dict(v.blocks)) for p, v in self.volumes.items()))
        tid = self.storage.lastTransaction()
        from ZODB.TimeStamp import TimeStamp
        self.states.append({'tid': hexid(tid), 'time': str(TimeStamp(tid)), 'user': user, 'description': note,
                            'volumes': dict((p, v.state()) for p, v in self.volumes.items())})

    def close(self, **more):
        self.conn.cacheMinimize(); self.conn.sync()
        for v in self.volumes.values():           # the original reads back what the model says
            for b, d in v.blocks.items():
                buf = bytearray(v.blksize)
                z = self.conn.get(v.zfile._p_oid)
                if PY3: z.loadblk(b, buf)
                else:
                    a = numpy.zeros(v.blksize, numpy.uint8); z.loadblk(b, a.data); buf = bytearray(a.tobytes())
                assert bytes(buf) == d, (self.name, v.path, b)
        info = {'volumes': {}, 'states': self.states}
        for p, v in self.volumes.items():
            d = {'oid': hexid(v.zfile._p_oid), 'blksize': v.blksize, 'size': v.size(),
                 'blocks': dict((str(b), sha(x)) for b, x in sorted(v.blocks.items())[:400])}
            d.update(getattr(v, 'array', {})); info['volumes'][p] = d
        info.update(more)
        transaction.abort(); self.conn.close(); self.db.close()
        for suffix in ('.lock', '.tmp'):
            if os.path.exists(self.file + suffix): os.remove(self.file + suffix)
        manifest["databases"][self.name + ".fs"] = info


def shapes(v, fmt, first=0):
    """The shapes of block content that formats treat differently."""
    n = v.blksize
    v.store(first, noise(n), fmt)                               # full
    v.store(first + 1, noise(n // 3), fmt)                      # trailing zeros
    v.store(first + 2, b'', fmt)                                # all zero, but stored
    v.store(first + 4, b'\0' * (n - 1) + b'\1', fmt)            # last byte only; block +3 is a hole
    v.store(first + 5, noise(1), fmt)                           # first byte only
    v.store(first + 6, b'\0' * (n // 2) + noise(n // 4), fmt)   # middle only
    v.store(first + 9, noise(n // 2) + b'\0' * (n // 4) + noise(n // 4), fmt)


def simple(fmt):
    db = Database(fmt.lower())
    v = db.file_at('/f', 32768); db.commit(note=u'empty file')
    shapes(v, fmt); db.commit(u'ann', u'shapes')
    v.edit(0, 100, b'edit', fmt); db.commit(u'bob', u'one small edit')
    v.edit(0, 8000, noise(9000), fmt); v.edit(3, 5, b'hole filled', fmt); db.commit(note=u'edit and a hole filled')
    v.store(0, noise(10), fmt); db.commit(note=u'shrunk to ten bytes')
    v.store(4, b'', fmt); db.commit(note=u'zeroed')
    v.store(15, noise(32768), fmt); db.commit(note=u'grown')
    db.close()


def formats():
    db = Database('formats')
    v = db.file_at('/f', 16384); db.commit()
    for i in range(24):
        fmt = rng.choice(['ZBlk0', 'ZBlk1'])
        for _ in range(rng.randrange(1, 4)):
            v.edit(rng.randrange(10), rng.randrange(16000), noise(rng.randrange(1, 380)), fmt)
        db.commit(u'ann', u'%s %d' % (fmt, i), i=i)
    db.close()


def chunks():
    db = Database('chunks')
    v = db.file_at('/f', 131072); db.commit()
    keep = ZBlk1.CHUNKSIZE
    for blk, size in enumerate([512, 1000, 4096, 65536, 131072]):
        ZBlk1.CHUNKSIZE = size; v.store(blk, noise(131072 - 777 * blk), 'ZBlk1')
    ZBlk1.CHUNKSIZE = keep; db.commit(note=u'chunk sizes')
    for blk in range(5): v.edit(blk, 70000, b'XYZ', 'ZBlk1')
    db.commit(note=u'edited with chunks of 4096')
    # irregular chunks, gaps between them, an empty one
    z, content = ZBlk1(), bytearray(131072)
    from BTrees.IOBTree import IOBTree
    z.chunktab = IOBTree()
    for start, n in [(0, 10), (100, 5000), (5100, 1), (20000, 0), (40000, 30000), (131071, 1)]:
        data = noise(n); content[start:start + n] = data
        z.chunktab[start] = ZData(data)
    v.zfile.blktab[7] = z; v.blocks[7] = bytes(content)
    db.commit(note=u'irregular chunks'); db.close()


def geometry():
    db = Database('geometry')
    small, odd, big, sparse = [db.file_at(p, n) for p, n in
        [('/small', 4096), ('/odd', 10000), ('/big', 2 << 20), ('/sparse', 4096)]]
    db.commit()
    shapes(small, 'ZBlk0'); shapes(odd, 'ZBlk1'); shapes(odd, 'ZBlk0', 20)
    big.store(0, noise(5000), 'ZBlk0'); big.store(2, b'\0' * 2000000 + noise(99), 'ZBlk1'); db.commit()
    for b in (0, 5, 1000, 10 ** 6, 2 ** 31 + 7): sparse.store(b, noise(50), 'ZBlk0')
    db.commit(); odd.edit(1, 9990, noise(10), 'ZBlk1'); db.commit(); db.close()


def tree():
    db = Database('tree')
    v = db.file_at('/f', 64); db.commit()
    keys = list(range(20000)); todo = keys[:]
    rng.shuffle(todo)
    for i in range(0, len(todo), 5000):
        for k in todo[i:i + 5000]: v.store(k, struct.pack('>I', k) + noise(4), 'ZBlk0')
        db.commit(note=u'%d blocks' % (i + 5000))
    for k in range(3000, 4500): v.delete(k)
    for k in range(19000, 20000): v.delete(k)
    db.commit(note=u'deleted')
    for k in range(3500, 3600): v.store(k, noise(9), 'ZBlk1')
    db.commit(note=u'some again'); db.close()


def history(n, name='history'):
    db = Database(name)
    vs = [db.file_at('/a', 8192), db.file_at('/b', 16384), db.array_at('/c', (3000,), 'f8', blksize=2 << 20)]
    db.commit()
    for i in range(n):
        for v in rng.sample(vs, rng.randrange(1, 4)):
            last = (v.fixed or 12 * v.blksize) - 600
            for _ in range(rng.randrange(1, 4)):
                p = rng.randrange(last); b, o = divmod(p, v.blksize); m = min(rng.randrange(1, 600), v.blksize - o)
                v.edit(b, o, rng.choice([noise(m), b'\0' * m]), rng.choice(['ZBlk0', 'ZBlk1']))
        db.commit(rng.choice([u'ann', u'', u'/site bob', u'c\xe9line']), u'step %d \u2013 random' % i, step=i)
    return db


def undo():
    db = history(12, 'undo')
    for _ in range(2):
        db.db.undo(db.db.undoLog(0, 1)[0]['id']); transaction.commit(); db.conn.sync(); db.conn.cacheMinimize()
        for v in db.volumes.values(): v.blocks = dict(db.models[-2][v.path])
        db.snap(note=u'undo of the newest')
        for i in range(2):
            db.volumes['/a'].edit(1, 7 + i, b'after undo', 'ZBlk0'); db.commit(note=u'after undo')
    db.close()


def packed():
    import time
    db = history(15, 'packed')
    time.sleep(0.1); t = time.time(); time.sleep(0.1)
    n = len(db.states)
    for i in range(6): db.volumes['/a'].edit(i, 1, noise(99), 'ZBlk1'); db.commit(note=u'after %d' % i)
    db.db.pack(t)
    db.states = db.states[n - 1:]     # the state at the pack time and all later ones are still there
    db.close(packed=True)
    if os.path.exists(db.file + '.old'): os.remove(db.file + '.old')


def catalogue():
    db = Database('catalogue')
    a = db.root['site'] = PersistentMapping(); b = a['deep'] = PersistentMapping(); c = a['folder'] = OOBTree()
    for i in range(200): c['k%03d' % i] = i
    made = [db.file_at('/plain', 4096), db.file_at('/site/x', 8192, a, 'x'), db.file_at('/site/deep/y', 8192, b, 'y'),
            db.file_at('/site/folder/z', 8192, c, 'z'),
            db.array_at('/site/m', (40, 50), 'f8', holder=a, key='m', blksize=2 << 20),
            db.array_at('/site/deep/fortran', (7, 5, 3), 'i4', order='F', holder=b, key='fortran', blksize=2 << 20),
            db.array_at('/site/folder/big-endian', (1000,), '>u2', holder=c, key='big-endian', blksize=2 << 20),
            db.array_at('/scalar-rec', (100,), [('t', 'i8'), ('v', 'f4')], blksize=2 << 20),
            db.array_at('/empty', (0,), 'u1', blksize=2 << 20)]
    db.root['list'] = [1, 2, {'three': 4}]; db.root[u'n\xe4me' if PY3 else 'plain2'] = 'text'
    db.commit(u'ann', u'catalogue')
    for v in made:
        n = v.size() if v.fixed is not None else 3 * v.blksize
        for p in range(0, n, v.blksize): v.store(p // v.blksize, noise(min(v.blksize, n - p, 20000)), rng.choice(['ZBlk0', 'ZBlk1']))
    db.commit(u'ann', u'content'); db.close()


def replaced():
    db = Database('replaced')
    v = db.file_at('/f', 8192); db.commit(); shapes(v, 'ZBlk0'); db.commit()
    z, data = ZBlk0(), noise(500)
    z.setblkdata(data.ljust(8192, b'\0')); v.zfile.blktab[1] = z; v.blocks[1] = data.ljust(8192, b'\0')
    db.commit(note=u'replaced without touching the old object'); db.close()


def zlib_wrapped():
    try: from zc.zlibstorage import ZlibStorage
    except ImportError: return
    db = Database('zlib', ZlibStorage)
    v = db.file_at('/f', 32768); db.commit(); shapes(v, 'ZBlk0'); db.commit()
    v.store(20, b'abc' * 9000, 'ZBlk1'); db.commit(); db.close(wrapper='zc.zlibstorage')


def damaged():
    """Copies of a good file with one defect each. `until` = the newest transaction that is whole: a reader
    opens there (null: it must refuse). The original itself opens some of them at a phantom tid."""
    db = history(10, 'damaged-base'); db.close()
    src = open(db.file, 'rb').read(); st = db.states; info = manifest['databases'].pop('damaged-base.fs')
    os.remove(db.file)
    if os.path.exists(db.file + '.index'): os.remove(db.file + '.index')
    pos = [i for i in range(len(src)) if any(src[i:i + 8] == binascii.unhexlify(s['tid']) for s in st) and src[i + 16:i + 17] in (b' ', b'p', b'u')]
    last = pos[-1]; prev = pos[-2]
    made = {
        'cut-in-last-header': (src[:last + 10], -2), 'cut-in-last-data': (src[:last + (len(src) - last) // 2], -2),
        'cut-before-last-length': (src[:-8], -2), 'cut-in-last-length': (src[:-3], -2),
        'checkpoint-tail': (src[:last + 16] + b'c' + src[last + 17:], -2),
        'zero-tail': (src + b'\0' * 1000, -1), 'garbage-tail': (src + noise(300), -1),
        'bad-magic': (b'FS99' + src[4:], None), 'empty-file': (b'', None), 'only-magic': (src[:4], None), 'text': (b'hello\n' * 100, None),
        'length-mismatch-middle': (src[:prev + 8] + struct.pack('>Q', 2 ** 40) + src[prev + 16:], -3),
    }
    for k, (data, i) in sorted(made.items()):
        with open(os.path.join(out, 'damaged-' + k + '.fs'), 'wb') as f: f.write(data)
        manifest['databases']['damaged-' + k + '.fs'] = {'damaged': k, 'until': st[i]['tid'] if i is not None else None,
            'volumes': info['volumes'] if i is not None else {}, 'states': st[:len(st) + 1 + i] if i is not None else []}
    # one bit flipped inside a block's data: readable, only that block's hash differs, nothing to detect
    stale = history(10, 'index-stale'); saved = stale.file + '.index.kept'
    stale.db.close(); shutil.copy(stale.file + '.index', saved)
    stale.storage = ZODB.FileStorage.FileStorage(stale.file); stale.db = ZODB.DB(stale.storage); stale.conn = stale.db.open(); stale.root = stale.conn.root()
    for p, v in stale.volumes.items(): v.zfile = stale.conn.get(v.zfile._p_oid)
    for i in range(5): stale.volumes['/a'].edit(i, 3, noise(44), 'ZBlk0'); stale.commit()
    stale.close(index='older than the file'); shutil.move(saved, stale.file + '.index')


for f in (lambda: simple('ZBlk0'), lambda: simple('ZBlk1'), formats, chunks, geometry, tree,
          lambda: history(40).close(), undo, packed, catalogue, replaced, zlib_wrapped, damaged):
    f()
with io.open(os.path.join(out, 'manifest.json'), 'w', encoding='utf8') as f:
    f.write(u'' + json.dumps(manifest, indent=1, sort_keys=True))
print('%s: %d databases' % (out, len(manifest['databases'])))
