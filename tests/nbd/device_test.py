#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A device against a model: requests of any size and kind over several connections, failed commits,
aborts, restarts. And what is promised to several writers of one page.
"""
import os
import random
import threading

from nbdtest import (PAGE, Report, Scratch, Server, data_extents, database, extents, nbd, zbig_ok)

report = Report()
SIZE = 12 << 20


class Model:
    """The bytes of a device, and which pages of it are dirty."""

    def __init__(self, content):
        self.content, self.dirty = bytearray(content), set()

    def put(self, offset, data):
        self.content[offset:offset + len(data)] = data
        self.dirty.update(range(offset // PAGE, (offset + len(data) - 1) // PAGE + 1))

    def dirty_extents(self):
        result = []
        for page in sorted(self.dirty):
            if result and sum(result[-1]) == page * PAGE:
                result[-1] = (result[-1][0], result[-1][1] + PAGE)
            else:
                result.append((page * PAGE, PAGE))
        return result


def random_requests(server, seed, rounds):
    rng = random.Random(seed)
    server.attach("d", "/a", "/a")
    handles = [server.connect("/a") for _ in range(3)]
    clean = bytes(handles[0].pread(SIZE, 0))
    model = Model(clean)
    frozen = None
    for step in range(rounds):
        handle = rng.choice(handles)
        length = rng.choice((1, 7, 512, 4096, 5000, 65536, 300000))
        offset = rng.randrange(SIZE - length)
        if rng.random() < 0.4:
            offset -= offset % PAGE
        kind = rng.randrange(14)
        if kind < 4:
            data = rng.randbytes(length)
            handle.pwrite(data, offset, nbd.CMD_FLAG_FUA if rng.random() < 0.1 else 0)
            model.put(offset, data)
        elif kind < 6:
            call = handle.zero if kind == 4 else handle.trim
            call(length, offset)
            model.put(offset, bytes(length))
        elif kind < 10:
            got = bytes(handle.pread(length, offset))
            if not report.true("read %d at %d in step %d" % (length, offset, step),
                               got == bytes(model.content[offset:offset + length])):
                return
        elif kind == 10:
            handle.cache(length, offset)
            if rng.random() < 0.2:
                handle.flush()
        elif kind == 11 and frozen is None:
            server.ok("freeze", device="d")
            frozen = Model(model.content)
            frozen.dirty, model.dirty = model.dirty, set()
        elif kind == 12 and frozen is not None:
            other = server.connect("/a#frozen")
            report.equal("frozen extents in step %d" % step, data_extents(other),
                         frozen.dirty_extents())
            report.equal("the rest is a hole",
                         {k for _, _, k in extents(other, SIZE)} - {0, 3}, set())
            for at, size in frozen.dirty_extents()[:20]:
                report.true("frozen bytes at %d in step %d" % (at, step),
                            bytes(other.pread(size, at)) == bytes(frozen.content[at:at + size]))
            other.shutdown()
            report.equal("dirty bytes", server.ok("unfreeze", device="d")["dirty_bytes"],
                         PAGE * len(model.dirty | frozen.dirty))
            model.dirty |= frozen.dirty
            frozen = None
        elif kind == 13 and rng.random() < 0.2 and frozen is None:
            if rng.random() < 0.5:
                server.ok("abort", device="d")
                model = Model(clean)
            else:
                server.kill()
                server.start()
                server.attach("d", "/a", "/a")
                handles = [server.connect("/a") for _ in range(3)]
                report.equal("dirty bytes after the restart",
                             server.ok("status")["devices"][0]["dirty_bytes"],
                             PAGE * len(model.dirty))
    report.true("all of it", bytes(handles[0].pread(SIZE, 0)) == bytes(model.content))
    if frozen is not None:
        server.ok("unfreeze", device="d")
    server.ok("detach", device="d", discard=True)


def writers_of_one_page(server):
    """Eight connections write an eighth of each page each, at once."""
    server.attach("d", "/a", "/a")
    part = PAGE // 8

    def write(number):
        handle = server.connect("/a")
        for round_ in range(20):
            for page in range(8):
                handle.pwrite(bytes([16 * round_ % 256 | number]) * part,
                              page * PAGE + number * part)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = b"".join(bytes([16 * 19 % 256 | n]) * part for n in range(8)) * 8
    report.true("every part is there", server.read("/a", 0, 8 * PAGE) == expected)
    server.ok("detach", device="d", discard=True)


def a_view_moves_as_one_step(server, url, folder):
    """Two pages are committed together, again and again; a reader of a device that follows never
    sees one without the other."""
    server.attach("r", "/a#r", "/a", read_only=True)
    change = os.path.join(folder, "change")
    stop, torn, reads = threading.Event(), [], [0]

    def read():
        handle = server.connect("/a#r")
        while not stop.is_set():
            pages = bytes(handle.pread(5 << 20, 0))
            if len({pages[0], pages[4096], pages[(5 << 20) - 1]}) != 1:
                torn.append(pages[0])
            reads[0] += 1

    with open(change, "wb") as f:
        f.write(bytes([1]) * (5 << 20))
    zbig_ok("import", url, "/a", change)
    server.ok("refresh", device="r", at="head")
    thread = threading.Thread(target=read)
    thread.start()
    for number in range(2, 12):
        with open(change, "wb") as f:
            f.write(bytes([number]) * (5 << 20))
        zbig_ok("import", url, "/a", change)
        server.ok("refresh", device="r", at="head")
    stop.set()
    thread.join()
    report.true("no read mixed two states", not torn and reads[0] > 0, (torn, reads))
    server.ok("detach", device="r")


def main():
    with Scratch() as folder:
        url = database(folder)
        with Server(folder, url) as server:
            for seed in range(3):
                random_requests(server, seed, 400)
            writers_of_one_page(server)
            a_view_moves_as_one_step(server, url, folder)
            report.equal("exit status", server.stop(), 0)
            report.true("nothing was logged as an error",
                        not [line for line in server.log().splitlines() if "error" in line],
                        server.log()[-2000:])
    report.done()


if __name__ == "__main__":
    main()
