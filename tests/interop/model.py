# SPDX-License-Identifier: BSD-3-Clause
"""What a database must hold, kept beside it: volumes as byte arrays, and a digest a transaction."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from zbigtest import sha256, zbig  # noqa: E402


class Volume:
    def __init__(self, path, blksize, size=None):
        self.path, self.blksize = path, blksize
        self.fixed = size is not None  # an array
        self.content = bytearray(size or 0)

    def room(self):
        """How far a write may reach: an array's size, or two blocks past the end of a file."""
        return len(self.content) if self.fixed else len(self.content) + 2 * self.blksize

    def write(self, offset, data):
        end = offset + len(data)
        if end > len(self.content):
            blocks = (end + self.blksize - 1) // self.blksize
            self.content.extend(bytes(blocks * self.blksize - len(self.content)))
        self.content[offset:end] = data

    def digest(self):
        return [len(self.content), sha256(bytes(self.content))]


class Model:
    def __init__(self, volumes):
        self.volumes = {v.path: v for v in volumes}
        self.states = {}  # tid -> path -> [size, sha256]

    def committed(self, tid):
        state = {path: v.digest() for path, v in self.volumes.items()}
        assert len(tid) == 16, tid
        # The newest tid stays where nothing was stored, as when Python writes equal chunks.
        assert self.states.get(tid, state) == state, tid
        self.states[tid] = state

    def compare_zbig(self, report, url):
        """Every volume at every tid, by zbig export."""
        for tid, state in self.states.items():
            for path, digest in state.items():
                result = zbig("export", url, path, "--at", tid)
                got = [len(result.out), sha256(result.out)] if result.status == 0 else str(result)
                report.equal("zbig: %s at %s" % (path, tid), got, digest)

    def compare_python(self, report, url, peer):
        """The same through Python's classes, and what the checkers of ZODB and BTrees say."""
        got = peer("digests", url=url, tids=sorted(self.states), paths=sorted(self.volumes))
        for tid, state in self.states.items():
            report.equal("Python: at " + tid, got[tid], state)
        report.equal("checkers", peer("check", url=url, paths=sorted(self.volumes)), [])


def patch(rng, size):
    """Random bytes with runs of zeros among them, as arrays have."""
    out = bytearray()
    while len(out) < size:
        n = rng.choice([1, 7, 100, 4096, 5000])
        out += bytes(n) if rng.random() < 0.3 else bytes(rng.getrandbits(8) for _ in range(n))
    return bytes(out[:size])
