#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""The device behaves as a block device does: shared mappings, sizes that nobody changes, errors of
the server that reach the program which caused them, and no mount where there should be none.
"""
import errno
import fcntl
import mmap
import os
import stat
import subprocess

from fusetest import (FUSE, PAGE, Backend, Front, Holder, MiB, Report, Scratch, disk, is_mounted,
                      libc, resident, wait_for)
import ctypes

report = Report()


def errno_of(what):
    try:
        what()
    except OSError as error:
        return error.errno
    return 0


def shared_mappings(folder):
    size = 4 * MiB
    with disk(folder, size) as backend, Front(folder, backend.uri) as front, \
            Holder(front, size) as one, Holder(front, size) as two:
        one.write(3 * PAGE - 2, b"shared")
        report.equal("seen by the other", two.read(3 * PAGE - 2, 6), b"shared")
        report.equal("not by the server yet", backend.read(3 * PAGE - 2, 6), bytes(6))
        two.sync()
        report.equal("after msync", backend.read(3 * PAGE - 2, 6), b"shared")
        fd = os.open(front.path, os.O_RDWR)
        os.pwrite(fd, b"by write", 100)
        report.equal("a write is seen in a mapping", two.read(100, 8), b"by write")
        one.write(size - 4, b"last")
        os.fsync(fd)
        report.equal("after fsync", (backend.read(100, 8), backend.read(size - 4, 4)),
                     (b"by write", b"last"))
        one.write(0, b"closed")
        os.close(fd)
        report.equal("after a close", backend.read(0, 6), b"closed")
        direct = os.open(front.path, os.O_RDWR | os.O_DIRECT)
        buffer = mmap.mmap(-1, PAGE)
        buffer[:6] = b"direct"
        report.equal("O_DIRECT write", os.pwrite(direct, buffer, 8 * PAGE), PAGE)
        report.equal("at the server", backend.read(8 * PAGE, 6), b"direct")
        report.equal("in a mapping", one.read(8 * PAGE, 6), b"direct")
        os.close(direct)


def attributes(folder):
    with disk(folder, 3 * MiB + 512) as backend, Front(folder, backend.uri) as front:
        def size():
            return os.stat(front.path).st_size
        report.equal("size", size(), 3 * MiB + 512)
        report.equal("mode", stat.S_IMODE(os.stat(front.path).st_mode), 0o600)
        report.equal("owner", os.stat(front.path).st_uid, os.getuid())
        os.chmod(front.path, 0o640)
        report.equal("chmod", stat.S_IMODE(os.stat(front.path).st_mode), 0o640)
        backend.write(0, b"keep")
        os.close(os.open(front.path, os.O_WRONLY | os.O_TRUNC))
        report.equal("O_TRUNC changes nothing", (size(), backend.read(0, 4)),
                     (3 * MiB + 512, b"keep"))
        for wrong in (1, PAGE, 4 * MiB):
            report.equal("truncate to %d" % wrong, errno_of(lambda: os.truncate(front.path, wrong)),
                         errno.EINVAL)
        report.equal("size", size(), 3 * MiB + 512)
        with open(front.path, "rb") as f:
            report.equal("read to the end", len(f.read()), 3 * MiB + 512)

        # A write across the end: what fits is stored, the writer is told, the size comes back.
        fd = os.open(front.path, os.O_RDWR)
        os.pwrite(fd, b"E" * 2048, 3 * MiB - 512)
        report.equal("write past the end", errno_of(lambda: os.fsync(fd)), errno.ENOSPC)
        report.equal("what fits", backend.read(3 * MiB - 512, 1024), b"E" * 1024)
        os.pwrite(fd, b"X", 5 * MiB)
        report.equal("write beyond it", errno_of(lambda: os.fsync(fd)), errno.ENOSPC)
        os.close(fd)
        wait_for("the size to be right", lambda: size() == 3 * MiB + 512)
        direct = os.open(front.path, os.O_RDWR | os.O_DIRECT)
        buffer = mmap.mmap(-1, PAGE)
        report.equal("O_DIRECT beyond the end",
                     errno_of(lambda: os.pwrite(direct, buffer, 4 * MiB)), errno.ENOSPC)
        os.close(direct)
        report.equal("size", size(), 3 * MiB + 512)

        # SEEK_DATA would have to know the kernel's dirty pages.
        fd = os.open(front.path, os.O_RDWR)
        report.equal("no holes", os.lseek(fd, 2 * MiB, os.SEEK_DATA), 2 * MiB)
        os.close(fd)


def zeroing(folder):
    keep, punch, zero = 1, 2, 0x10
    with disk(folder, 4 * MiB) as backend, Front(folder, backend.uri) as front:
        backend.write(0, b"\1" * 4 * MiB)
        mapping = front.map()
        report.equal("before", mapping[MiB], 1)
        mapping[MiB - 1] = 9
        fd = os.open(front.path, os.O_RDWR)

        def fallocate(mode, offset, length):
            if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) != 0:
                raise OSError(ctypes.get_errno(), "fallocate")
        fallocate(punch | keep, MiB, MiB)
        report.equal("punched", (mapping[MiB - 1], mapping[MiB], mapping[2 * MiB - 1],
                                 mapping[2 * MiB]), (9, 0, 0, 1))
        fallocate(zero, 3 * MiB, PAGE)
        report.equal("zeroed", mapping[3 * MiB:3 * MiB + PAGE + 1], bytes(PAGE) + b"\1")
        report.equal("at the server", backend.read(MiB, MiB) + backend.read(3 * MiB, PAGE),
                     bytes(MiB + PAGE))
        fallocate(0, 0, 4 * MiB)
        report.equal("allocating past the end", errno_of(lambda: fallocate(0, 0, 5 * MiB)),
                     errno.ENOSPC)
        report.equal("size", os.stat(front.path).st_size, 4 * MiB)
        os.close(fd)
        mapping.close()


def errors_of_the_server(folder):
    flag = os.path.join(folder, "fail")
    for name, code in (("ENOSPC", errno.ENOSPC), ("EIO", errno.EIO)):
        with Backend(folder, "--filter=error", "memory", "4M", "error=" + name,
                     "error-pwrite-rate=100%", "error-pwrite-file=" + flag) as backend, \
                Front(folder, backend.uri) as front:
            with open(flag, "w", encoding="ascii"):
                pass
            fd = os.open(front.path, os.O_RDWR)
            os.pwrite(fd, b"x", 0)
            report.equal("fsync when writes fail with " + name, errno_of(lambda: os.fsync(fd)),
                         code)
            direct = os.open(front.path, os.O_RDWR | os.O_DIRECT)
            report.equal("O_DIRECT, " + name,
                         errno_of(lambda: os.pwrite(direct, mmap.mmap(-1, PAGE), 0)), code)
            os.close(direct)
            os.pwrite(fd, b"y", 0)
            report.equal("sync, " + name, front.control("sync")["code"],
                         "no_space" if code == errno.ENOSPC else "failed")
            report.equal("each descriptor is told", errno_of(lambda: os.fsync(fd)), code)
            os.remove(flag)
            os.pwrite(fd, b"z", 0)
            os.fsync(fd)
            report.equal("works again", backend.read(0, 1), b"z")
            report.true("counted", front.ok("status")["requests_failed"] >= 3)
            os.close(fd)
    with Backend(folder, "--filter=error", "memory", "4M", "error=EIO", "error-pread-rate=100%",
                 "error-pread-file=" + flag) as backend, Front(folder, backend.uri) as front:
        with open(flag, "w", encoding="ascii"):
            pass
        fd = os.open(front.path, os.O_RDWR)
        report.equal("read", errno_of(lambda: os.pread(fd, 10, 0)), errno.EIO)
        os.remove(flag)
        report.equal("reads again", os.pread(fd, 10, 0), bytes(10))
        os.close(fd)


def read_only(folder):
    with disk(folder, MiB) as backend:
        backend.write(10, b"text")
        with Front(folder, backend.uri, "--read-only") as front:
            report.equal("size", os.stat(front.path).st_size, MiB)
            report.equal("for writing", errno_of(lambda: os.open(front.path, os.O_RDWR)),
                         errno.EROFS)
            mapping = front.map(write=False)
            report.equal("read", mapping[10:14], b"text")
            mapping.close()
            report.true("hello", front.ok("hello")["read_only"])
            front.ok("sync")
            front.ok("quit")
            report.equal("exit status", front.wait(), 0)
    with Backend(folder, "-r", "memory", "1M") as backend:
        done = subprocess.run([FUSE, "--uri", backend.uri, os.path.join(folder, "device")],
                              capture_output=True, check=False, timeout=30)
        report.equal("a read-only export", (done.returncode, b"--read-only" in done.stderr),
                     (1, True))
        report.true("no trace", not os.path.exists(os.path.join(folder, "device")))


def what_is_refused(folder):
    path = os.path.join(folder, "device")

    def run(*arguments):
        done = subprocess.run([FUSE, *arguments], capture_output=True, check=False, timeout=30,
                              text=True)
        report.equal("one line: %r" % done.stderr, done.stderr.count("\n"), 1)
        return done.returncode
    with disk(folder, MiB) as backend:
        full = os.path.join(folder, "full")
        with open(full, "w", encoding="ascii") as f:
            f.write("data")
        report.equal("no arguments", run(), 2)
        report.equal("unknown option", run("--frobnicate"), 2)
        report.equal("no path", run("--uri", backend.uri), 2)
        report.equal("a bad mode", run("--uri", backend.uri, "--mode", "9", path), 2)
        report.equal("no number", run("--uri", backend.uri, "--dead-timeout", "x", path), 2)
        report.equal("too many", run("--uri", backend.uri, "--connections", "99", path), 2)
        report.equal("a file with data", run("--uri", backend.uri, full), 2)
        with open(full, encoding="ascii") as f:
            report.equal("and it keeps them", f.read(), "data")
        report.equal("a folder", run("--uri", backend.uri, folder), 2)
        report.equal("no folder", run("--uri", backend.uri, folder + "/no/file"), 4)
        report.equal("no server", run("--uri", "nbd+unix:///?socket=%s/no" % folder, path), 6)
        report.equal("no URI", run("--uri", "nonsense", path), 6)
        report.equal("a long socket", run("--uri", backend.uri, "--control",
                                          os.path.join(folder, "x" * 120), path), 2)
        with Front(folder, backend.uri) as front:
            report.equal("mounted already", run("--uri", backend.uri, path), 5)
            report.equal("control socket in use",
                         run("--uri", backend.uri, "--control", front.socket, path + "2"), 5)
            report.true("the first one lives", front.ok("hello"))
            report.equal("mode of the socket", stat.S_IMODE(os.stat(front.socket).st_mode), 0o600)
            front.ok("quit")
            front.wait()
    with Backend(folder, "memory", "0") as backend:
        report.equal("an empty export", run("--uri", backend.uri, path), 2)
    report.equal("nothing is left", sorted(os.listdir(folder)),
                 ["disk", "full", "fuse.log", "nbd.sock", "nbdkit.pid"])
    report.true("no mount", not is_mounted(path))


def in_background(folder):
    path, control, log = (os.path.join(folder, name) for name in ("device", "c.sock", "log"))
    with disk(folder, MiB) as backend:
        done = subprocess.run([FUSE, "--uri", backend.uri, "--control", control, "--log", log,
                               path], capture_output=True, check=False, timeout=30)
        report.equal("returns when it is mounted",
                     (done.returncode, done.stderr, os.stat(path).st_size), (0, b"", MiB))
        subprocess.run(["fusermount3", "-u", path], check=True)
        wait_for("it to end", lambda: not os.path.exists(control) and not os.path.exists(path))


def large_requests(folder):
    """What the kernel writes back comes in pieces of a MiB, what it reads ahead of 128 KiB."""
    size = 32 * MiB
    with Backend(folder, "--filter=log", "memory", str(size),
                 "logfile=" + os.path.join(folder, "requests")) as backend, \
            Front(folder, backend.uri, "--read-ahead", "4096") as front:
        data = os.urandom(size)
        with open(front.path, "r+b", buffering=0) as f:
            for offset in range(0, size, MiB):
                f.write(data[offset:offset + MiB])
            os.fsync(f.fileno())
        front.ok("invalidate", whole=True)
        with open(front.path, "rb") as f:
            report.true("content", f.read() == data)
        with open(os.path.join(folder, "requests"), encoding="ascii") as f:
            lines = f.read().splitlines()
        writes = sum(" Write " in line and "..." in line for line in lines)
        reads = sum(" Read " in line and "..." in line for line in lines)
        report.true("few writes", writes <= 64, writes)
        report.true("few reads", reads <= 300, reads)


for test in (shared_mappings, attributes, zeroing, errors_of_the_server, read_only, what_is_refused,
             in_background, large_requests):
    print(test.__name__, flush=True)
    with Scratch() as scratch:
        test(scratch)
report.done()
