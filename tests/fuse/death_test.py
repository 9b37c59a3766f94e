#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Deaths and ends: of the server (programs only wait), for good (EIO after the time-out), of the
front end itself at the worst moment (nothing hangs), and every way of leaving.
"""
import errno
import mmap
import os
import random
import signal
import subprocess
import threading
import time

from fusetest import (FUSE, PAGE, Control, Front, Holder, MiB, Report, Scratch, disk,
                      is_mounted, wait_for)

report = Report()


def killed_under_load(folder):
    """kill -9 of the server, again and again, under a writer by mapping, a writer by O_DIRECT and a
    reader that verify every byte. No program sees an error; nothing that was synced is lost.
    """
    size = 16 * MiB
    with disk(folder, size) as backend, Front(folder, backend.uri) as front:
        stop = os.path.join(folder, "stop")

        def load(body):
            """In a process: a thread that waits for a page stops Python's other threads too."""
            pid = os.fork()
            if pid:
                return pid
            rounds = 0
            try:
                while not os.path.exists(stop) or rounds < 3:
                    body(rounds)
                    rounds += 1
                os._exit(0)
            except BaseException as error:  # noqa: the verdict is the exit status
                print("%s, round %d: %s" % (body.__name__, rounds, error), flush=True)
                os._exit(1)

        def pattern(page, generation):
            return (b"%08d-%08d" % (page, generation)) * (PAGE // 17) + bytes(PAGE % 17)

        chance = random.Random(1)
        # Not in this process: each close of a FUSE file writes it back, and the one that a child
        # does before it becomes nbdkit would wait for nbdkit.
        mapping = direct = None

        def by_mapping(generation):
            nonlocal mapping
            mapping = mapping or front.map(8 * MiB)
            for _ in range(20):
                page = chance.randrange(2048)
                mapping[page * PAGE:(page + 1) * PAGE] = pattern(page, generation)
            mapping.flush()
            with open(os.path.join(folder, "disk"), "rb") as image:
                for page in range(2048):
                    image.seek(page * PAGE)
                    assert image.read(PAGE) == mapping[page * PAGE:(page + 1) * PAGE], \
                        "page %d was synced and is lost" % page

        def by_direct(generation):
            nonlocal direct
            direct = direct or os.open(front.path, os.O_RDWR | os.O_DIRECT)
            page = 2048 + generation % 2048
            buffer = mmap.mmap(-1, PAGE)
            buffer[:] = pattern(page, generation)
            assert os.pwrite(direct, buffer, page * PAGE) == PAGE
            back = mmap.mmap(-1, PAGE)
            assert os.preadv(direct, [back], page * PAGE) == PAGE
            assert back[:] == buffer[:], "page %d by O_DIRECT" % page

        loads = [load(by_mapping), load(by_direct)]
        kills = 20
        for _ in range(kills):
            time.sleep(chance.uniform(0, 0.1))
            backend.kill()
            time.sleep(chance.uniform(0, 0.1))
            backend.start()
        with open(stop, "w", encoding="ascii"):
            pass
        report.equal("what programs saw", [os.waitpid(pid, 0)[1] for pid in loads], [0, 0])
        report.true("links were lost", front.ok("status")["links_lost"] >= kills / 2)
        report.equal("quit", front.ok("quit"), {"ok": True})
        report.equal("exit status", front.wait(), 0)


def gone_for_good(folder):
    size = 4 * MiB
    with disk(folder, size) as backend, Front(folder, backend.uri, "--dead-timeout", "2") as front:
        fd = os.open(front.path, os.O_RDWR)
        os.pread(fd, 1, 0)
        backend.kill()
        report.equal("what is cached", os.pread(fd, 1, 0), b"\0")
        start = time.monotonic()
        try:
            os.pread(fd, 1, 3 * MiB)
            report.true("a read without a server", False)
        except OSError as error:
            report.equal("error", error.errno, errno.EIO)
        waited = time.monotonic() - start
        report.true("after the time-out", 1.5 < waited < 6, waited)
        start = time.monotonic()
        try:
            os.pread(fd, 1, 3 * MiB)
            report.true("a second read", False)
        except OSError as error:
            report.equal("error", error.errno, errno.EIO)
        report.true("fails at once", time.monotonic() - start < 1)
        status = front.ok("status")
        report.true("status says so", status["links"] == 0 and status["last_error"], status)
        backend.start()
        wait_for("the server to be found", lambda: front.ok("status")["links"] > 0)
        report.equal("works again", os.pread(fd, 1, 3 * MiB), b"\0")
        os.close(fd)


def not_the_same_server(folder):
    size = 4 * MiB
    with disk(folder, size) as backend, Front(folder, backend.uri) as front:
        fd = os.open(front.path, os.O_RDWR)
        backend.kill()
        os.truncate(os.path.join(folder, "disk"), size // 2)
        backend.start()
        wait_for("a smaller export to be refused",
                 lambda: "the device has" in front.ok("status")["last_error"])
        report.equal("links", front.ok("status")["links"], 0)
        backend.kill()
        os.truncate(os.path.join(folder, "disk"), size)
        backend.arguments = ("-r", *backend.arguments)
        backend.start()
        wait_for("a read-only one to be refused",
                 lambda: "read-only" in front.ok("status")["last_error"])
        backend.kill()
        backend.arguments = backend.arguments[1:]
        backend.start()
        report.equal("the right one is", os.pread(fd, 1, 3 * MiB), b"\0")
        os.close(fd)


def stopped_server(folder):
    """A server that is there and silent is waited for; control requests are answered meanwhile."""
    size = 4 * MiB
    with disk(folder, size) as backend, \
            Front(folder, backend.uri, "--dead-timeout", "1") as front, \
            Holder(front, size) as holder:
        backend.process.send_signal(signal.SIGSTOP)
        reader = threading.Thread(target=holder.read, args=(MiB, 1))
        reader.start()
        time.sleep(2)
        report.true("the read waits", reader.is_alive())
        report.true("status", front.ok("status")["requests_open"] > 0)
        syncing = Control(front.socket)
        syncing.socket.sendall(b'{"op": "invalidate", "whole": true}\n')
        time.sleep(0.1)
        report.true("status beside a stuck invalidation", front.ok("status")["ok"])
        backend.process.send_signal(signal.SIGCONT)
        reader.join(10)
        report.true("the read came back", not reader.is_alive())
        report.equal("the invalidation too", syncing.reader.readline(), b'{"ok":true}\n')
        syncing.__exit__()


def agents_come_and_go(folder):
    """Many that asked for a sync or a drop and went away, while the server is silent, are nothing
    to the next one.
    """
    with disk(folder, MiB) as backend, \
            Front(folder, backend.uri) as front, \
            Holder(front, MiB) as holder:
        holder.write(0, b"dirty")
        backend.process.send_signal(signal.SIGSTOP)
        for i in range(60):
            with Control(front.socket) as gone:
                gone.socket.sendall((b'{"op": "sync"}\n', b'{"op": "invalidate", "whole": true}\n')
                                    [i % 2])
                time.sleep(0.02)
        report.true("the next is welcome", front.ok("hello")["ok"])
        wait_for("the others to leave", lambda: len(children_of(front.process.pid)) <= 2)
        backend.process.send_signal(signal.SIGCONT)
        report.equal("sync", front.ok("sync"), {"ok": True})
        report.equal("written", backend.read(0, 5), b"dirty")


def front_end_killed(folder):
    """kill -9 of the front end while an invalidation waits for a page that it is to read: whoever
    waits gets an error, no process stays, and the path can be used again.
    """
    size = 4 * MiB
    with disk(folder, size) as backend:
        with Front(folder, backend.uri) as front, Holder(front, size) as holder:
            holder.read(0, 1)
            holder.write(PAGE, b"dirty")
            backend.process.send_signal(signal.SIGSTOP)
            reader = threading.Thread(target=attempt, args=(front.path, 2 * MiB))
            reader.start()
            wait_for("a read in flight", lambda: front.ok("status")["requests_open"] > 0)
            with Control(front.socket) as stuck, Control(front.socket) as idle:
                stuck.socket.sendall(b'{"op": "invalidate", "whole": true}\n')
                report.true("idle", idle.ask('{"op": "status"}')["ok"])
                time.sleep(0.2)
                children = children_of(front.process.pid)
                report.true("workers", len(children) >= 2, children)
                front.process.kill()
                front.process.wait(10)
                wait_for("the workers to end", lambda: not any(map(alive, children)))
            reader.join(10)
            report.true("the reader is told", not reader.is_alive())
            backend.process.send_signal(signal.SIGCONT)
            report.true("a dead mount", is_mounted(front.path))
        with Front(folder, backend.uri) as front:
            report.equal("mounted over it", os.stat(front.path).st_size, size)


def attempt(path, offset):
    try:
        with open(path, "rb") as f:
            os.pread(f.fileno(), 1, offset)
    except OSError:
        pass


def children_of(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid), encoding="ascii") as f:
        return [int(child) for child in f.read().split()]


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid, encoding="ascii") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def ways_to_leave(folder):
    size = MiB
    with disk(folder, size) as backend:
        def check_gone(what, front, status=0):
            report.equal("%s: exit status" % what, front.wait(), status)
            report.true("%s: no mount" % what, not front.mounted())
            report.equal("%s: no file" % what, sorted(os.listdir(folder)),
                         ["disk", "fuse.log", "nbd.sock", "nbdkit.pid"])

        with Front(folder, backend.uri) as front, Holder(front, size) as holder:
            holder.write(0, b"one")
            report.equal("quit while mapped", front.control("quit")["code"], "busy")
            report.equal("it was synced", backend.read(0, 3), b"one")
            report.equal("fusermount3 while mapped",
                         subprocess.run(["fusermount3", "-q", "-u", front.path], check=False,
                                        stderr=subprocess.DEVNULL).returncode, 1)
            report.equal("goes on", holder.read(0, 3), b"one")
            holder.write(0, b"two")
            front.process.terminate()
            check_gone("SIGTERM while mapped", front)
            report.equal("SIGTERM synced", backend.read(0, 3), b"two")
        with Front(folder, backend.uri) as front, Holder(front, size) as holder:
            holder.write(0, b"lost")
            start = time.monotonic()
            front.ok("quit", force=True)
            check_gone("forced quit while mapped", front)
            report.true("soon", time.monotonic() - start < 5)
        with Front(folder, backend.uri) as front, Holder(front, size) as holder:
            holder.write(0, b"lost")
            backend.process.send_signal(signal.SIGSTOP)
            reader = threading.Thread(target=attempt, args=(front.path, PAGE))
            reader.start()
            front.process.terminate()
            time.sleep(0.3)
            report.true("SIGTERM waits for the server", front.process.poll() is None)
            front.ok("quit", force=True)
            start = time.monotonic()
            check_gone("forced quit with a silent server", front)
            report.true("within 10 s", time.monotonic() - start < 10)
            reader.join(10)
            report.true("the reader is told", not reader.is_alive())
            backend.process.send_signal(signal.SIGCONT)
        with Front(folder, backend.uri) as front:
            with open(front.path, "r+b") as f:
                f.write(b"three")
            report.equal("quit", front.ok("quit"), {"ok": True})
            check_gone("quit", front)
            report.equal("quit wrote", backend.read(0, 5), b"three")
        with Front(folder, backend.uri) as front:
            subprocess.run(["fusermount3", "-u", front.path], check=True)
            check_gone("fusermount3", front)
        with Front(folder, backend.uri) as front:
            holder = Holder(front, size)
            holder.read(0, 1)
            subprocess.run(["fusermount3", "-u", "-z", front.path], check=True)
            holder.write(0, b"lazy!")
            holder.sync()
            report.equal("a lazy unmount serves who has it", backend.read(0, 5), b"lazy!")
            report.equal("sync says that it is gone", front.control("sync")["code"], "failed")
            holder.__exit__()
            check_gone("lazy unmount", front)


def many_cycles(folder):
    path, control = os.path.join(folder, "device"), os.path.join(folder, "c.sock")
    with disk(folder, MiB) as backend:
        descriptors = len(os.listdir("/proc/%d/fd" % backend.process.pid))
        for i in range(50):
            subprocess.run([FUSE, "--uri", backend.uri, "--control", control, path], check=True,
                           timeout=30)
            with open(path, "r+b") as f:
                f.write(b"%d" % i)
            with Control(control) as c:
                report.equal("sync", c.ask('{"op": "sync"}'), {"ok": True})
                if i % 2:
                    report.equal("quit", c.ask('{"op": "quit"}'), {"ok": True})
            if not i % 2:
                subprocess.run(["fusermount3", "-u", path], check=True)
            wait_for("the end", lambda: not os.path.exists(control) and not os.path.exists(path))
            report.equal("written", backend.read(0, len(str(i))), b"%d" % i)
        report.true("no mount", not is_mounted(path))
        report.equal("files", sorted(os.listdir(folder)), ["disk", "nbd.sock", "nbdkit.pid"])
        wait_for("the server to be left alone", lambda: len(
            os.listdir("/proc/%d/fd" % backend.process.pid)) <= descriptors)


for test in (killed_under_load, gone_for_good, not_the_same_server, stopped_server,
             agents_come_and_go, front_end_killed, ways_to_leave, many_cycles):
    print(test.__name__, flush=True)
    with Scratch() as scratch:
        test(scratch)
report.done()
