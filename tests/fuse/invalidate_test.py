#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Invalidation: pages that programs have mapped stay as they were until they are invalidated, and
then show what the server has; exactly those pages, and no page that is dirty is lost.
"""
import json
import os

from fusetest import (PAGE, Backend, Control, Front, Holder, MiB, Report, Scratch, disk, resident)

report = Report()


def fill(backend, byte, offset, length):
    backend.write(offset, bytes([byte]) * length)


def mapped_everywhere(folder):
    """Mapped writable, read-only and locked, in three processes."""
    size = 8 * MiB
    with disk(folder, size) as backend:
        fill(backend, 1, 0, size)
        with Front(folder, backend.uri) as front, Holder(front, size) as writable, \
                Holder(front, size, write=False) as reader, \
                Holder(front, size, lock=True) as locked:
            holders = {"writable": writable, "read-only": reader, "locked": locked}
            for page in (0, 1, 700, 2047):
                for name, holder in holders.items():
                    report.equal("%s, page %d, at first" % (name, page),
                                 holder.read(page * PAGE, 1), b"\1")
            fill(backend, 2, 0, size)
            for name, holder in holders.items():
                # If this fails, what follows proves nothing.
                report.equal("%s is stale before" % name, holder.read(700 * PAGE, 1), b"\1")
            front.invalidate([700 * PAGE, PAGE])
            for name, holder in holders.items():
                report.equal("%s, invalidated page" % name, holder.read(700 * PAGE, PAGE),
                             b"\2" * PAGE)
                report.equal("%s, the one before" % name, holder.read(700 * PAGE - 1, 1), b"\1")
                report.equal("%s, the one after" % name, holder.read(701 * PAGE, 1), b"\1")
            front.invalidate([0, 2 * PAGE], [2047 * PAGE, PAGE])
            for name, holder in holders.items():
                for page in (0, 1, 2047):
                    report.equal("%s, page %d" % (name, page), holder.read(page * PAGE, 1), b"\2")
            fill(backend, 3, 0, size)
            front.ok("invalidate", whole=True)
            for name, holder in holders.items():
                for page in range(0, 2048, 97):
                    report.equal("%s, whole" % name, holder.read(page * PAGE, 1), b"\3")
            with open(front.path, "rb") as f:
                report.equal("by read(2)", f.read(1), b"\3")


def exactly_those_pages(folder):
    size = 4 * MiB
    with disk(folder, size) as backend, Front(folder, backend.uri) as front:
        mapping = front.map()
        report.equal("content", bytes(mapping[:]), bytes(size))
        report.true("all is in memory", all(resident(mapping, size)))
        front.invalidate([PAGE, PAGE], [10 * PAGE, 3 * PAGE], [1023 * PAGE, PAGE])
        gone = [i for i, there in enumerate(resident(mapping, size)) if not there]
        report.equal("pages that went", gone, [1, 10, 11, 12, 1023])
        # A part of a page takes the page; beyond the end there is nothing.
        front.invalidate([20 * PAGE + 5, 1], [size - 1, 10 * MiB], [100 * MiB, PAGE])
        gone = [i for i, there in enumerate(resident(mapping, size)) if not there]
        report.equal("pages that went", gone, [1, 10, 11, 12, 20, 1023])
        before = front.bytes_read()
        for page in (0, 2, 9, 13, 19, 21, 500):
            mapping[page * PAGE]
        report.equal("bytes read for pages that stayed", front.bytes_read() - before, 0)
        fd = os.open(front.path, os.O_RDWR)
        os.close(fd)
        report.true("opening keeps the cache", resident(mapping, size)[500])
        mapping.close()


def dirty_pages(folder):
    size = MiB
    with disk(folder, size) as backend, Front(folder, backend.uri) as front, \
            Holder(front, size) as holder:
        holder.write(5 * PAGE, b"mine")
        backend.write(6 * PAGE, b"other")
        front.invalidate([0, size])
        report.equal("a dirty page was written", backend.read(5 * PAGE, 4), b"mine")
        report.equal("and is still there", holder.read(5 * PAGE, 4), b"mine")
        report.equal("a clean one is fresh", holder.read(6 * PAGE, 5), b"other")
        holder.write(7 * PAGE, b"again")
        front.ok("sync")
        report.equal("sync", backend.read(7 * PAGE, 5), b"again")


def huge(folder):
    size = 1 << 40
    with Backend(folder, "memory", str(size)) as backend, Front(folder, backend.uri) as front:
        report.equal("size", os.stat(front.path).st_size, size)
        length = 1 << 30
        at = size - length
        mapping = front.map(length, at)
        report.equal("hole", mapping[length - 1:], b"\0")
        mapping[length - 1] = 7
        mapping.flush()
        report.equal("the last byte", backend.read(size - 1, 1), b"\7")
        backend.write(size - 2, b"\5\6")
        report.equal("stale", mapping[length - 2:], b"\0\7")
        front.invalidate([size - PAGE, PAGE])
        report.equal("fresh", mapping[length - 2:], b"\5\6")
        front.ok("invalidate", whole=True)
        mapping.close()


def many_extents(folder):
    size = 128 * MiB
    with Backend(folder, "memory", str(size)) as backend, Front(folder, backend.uri) as front:
        mapping = front.map()
        mapping[:]  # all of it
        pages = list(range(0, size // PAGE, 3))[:10000]
        front.invalidate(*[[page * PAGE, PAGE] for page in pages])
        there = resident(mapping, size)
        report.equal("pages that went", [i for i, r in enumerate(there) if not r], pages)
        mapping.close()


def sizes(folder):
    """Growth and shrinking under a mapping, writable and read-only."""
    for options in ((), ("--read-only",)):
        size = MiB
        with disk(folder, size) as backend, Front(folder, backend.uri, *options) as front:
            with Holder(front, size, write=not options) as holder:
                holder.read(0, 1)
                if not options:
                    holder.write(0, b"dirty")
                reply = front.control("invalidate", size=2 * size, extents=[])
                report.equal("growth that the server knows nothing of",
                             (reply["ok"], reply.get("code")), (False, "invalid"))
                report.equal("size", os.stat(front.path).st_size, size)
                os.truncate(os.path.join(folder, "disk"), 2 * size)
                backend.write(2 * size - 3, b"end")
                front.ok("invalidate", size=2 * size, extents=[])
                report.equal("grown", os.stat(front.path).st_size, 2 * size)
                with open(front.path, "rb") as f:
                    f.seek(-3, os.SEEK_END)
                    report.equal("its end", f.read(), b"end")
                if not options:
                    report.equal("what was dirty", holder.read(0, 5), b"dirty")
                    with open(front.path, "r+b") as f:
                        f.seek(2 * size - 1)
                        f.write(b"D")
                    report.equal("written there", backend.read(2 * size - 3, 3), b"enD")
                front.ok("invalidate", size=size)
                report.equal("shrunk", os.stat(front.path).st_size, size)
                report.equal("hello", front.ok("hello")["size"], size)


def bad_requests(folder):
    with disk(folder, MiB) as backend, Front(folder, backend.uri) as front:
        with Control(front.socket) as control:
            for line in ("{", "[]", "{}", '{"op": 1}', '{"op": "invalidate"}',
                         '{"op": "invalidate", "extents": 1}',
                         '{"op": "invalidate", "extents": [1]}',
                         '{"op": "invalidate", "extents": [[0]]}',
                         '{"op": "invalidate", "extents": [[0, -1]]}',
                         '{"op": "invalidate", "extents": [[0, 1e3]]}',
                         '{"op": "invalidate", "extents": [[18446744073709551615, 1]]}',
                         '{"op": "invalidate", "whole": "yes"}',
                         '{"op": "invalidate", "size": "big"}', '{"op": "invalidate", "size": 0}',
                         '{"op": "quit", "force": 1}', "\xff\xfe", '{"op": "\\ud800"}'):
                reply = control.ask(line.encode("latin-1"))
                report.equal("refused: %r" % line, (reply["ok"], reply["code"]), (False, "invalid"))
            report.equal("unknown", control.ask('{"op": "dance"}')["code"], "unsupported")
            report.true("and goes on", control.ask('{"op": "status"}')["ok"])
            try:
                control.socket.sendall(b"x" * (2 << 20))
            except BrokenPipeError:
                pass  # it did not want to read all of it
            report.equal("too long", json.loads(control.reader.readline())["code"], "invalid")
        report.true("the front end lives", front.ok("status"))


for test in (mapped_everywhere, exactly_those_pages, dirty_pages, huge, many_extents, sizes,
             bad_requests):
    print(test.__name__, flush=True)
    with Scratch() as scratch:
        test(scratch)
report.done()
