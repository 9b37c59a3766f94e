# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of zbig-fuse share: a server (nbdkit with one of its own plugins), the front end,
its control socket, and a second process that maps the device.
"""
import ctypes
import json
import mmap
import os
import select
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "nbd"))
from nbdtest import BIN, PAGE, Control, Report, Scratch, nbd, require, skip  # noqa: E402,F401

MiB = 1 << 20
FUSE = os.path.join(BIN, "zbig-fuse")
libc = ctypes.CDLL(None, use_errno=True)

require("fusermount3")
if not os.access("/dev/fuse", os.R_OK | os.W_OK):
    skip("no /dev/fuse")


def wait_for(what, condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("waited %d s in vain for: %s" % (seconds, what))
        time.sleep(0.01)


class Backend:
    """nbdkit with a plugin that comes with it. `file` keeps its data when it is killed."""

    def __init__(self, folder, *arguments):
        self.folder = folder
        self.socket = os.path.join(folder, "nbd.sock")
        self.uri = "nbd+unix:///?socket=" + self.socket
        self.arguments = arguments
        self.process = None
        self.start()

    def start(self):
        pid = os.path.join(self.folder, "nbdkit.pid")
        for path in (self.socket, pid):
            if os.path.exists(path):
                os.remove(path)
        self.process = subprocess.Popen(
            ["nbdkit", "-f", "-U", self.socket, "-P", pid, *self.arguments],
            stdin=subprocess.DEVNULL)
        wait_for("nbdkit", lambda: os.path.exists(pid) or self.process.poll() is not None)
        assert self.process.poll() is None, "nbdkit did not start"

    def connect(self):
        handle = nbd.NBD()
        handle.connect_unix(self.socket)
        return handle

    def read(self, offset, length):
        return bytes(self.connect().pread(length, offset))

    def write(self, offset, data):
        self.connect().pwrite(data, offset)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def disk(folder, size):
    """A backend on a sparse file."""
    image = os.path.join(folder, "disk")
    with open(image, "wb") as f:
        f.truncate(size)
    return Backend(folder, "file", image)


class Front:
    """zbig-fuse, in the foreground so that its end can be awaited."""

    def __init__(self, folder, uri, *options):
        self.folder = folder
        self.path = os.path.join(folder, "device")
        self.socket = os.path.join(folder, "fuse.sock")
        self.log_path = os.path.join(folder, "fuse.log")
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [FUSE, "--foreground", "--uri", uri, "--control", self.socket, *options, self.path],
                stdin=subprocess.DEVNULL, stderr=log)
        wait_for("zbig-fuse: " + self.log(), self.answers)

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError("zbig-fuse did not start: " + self.log())
        try:
            with Control(self.socket) as control:
                return control.ask('{"op": "hello"}')["ok"]
        except (OSError, ValueError):
            return False

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def control(self, op, **members):
        with Control(self.socket) as control:
            return control.ask(json.dumps(dict(members, op=op)))

    def ok(self, op, **members):
        reply = self.control(op, **members)
        assert reply["ok"], (op, str(members)[:200], reply)
        return reply

    def invalidate(self, *extents):
        return self.ok("invalidate", extents=[list(extent) for extent in extents])

    def bytes_read(self):
        return self.ok("status")["bytes_read"]

    def mounted(self):
        return is_mounted(self.path)

    def map(self, length=0, offset=0, write=True):
        fd = os.open(self.path, os.O_RDWR if write else os.O_RDONLY)
        try:
            return mmap.mmap(fd, length, mmap.MAP_SHARED,
                             mmap.PROT_READ | (mmap.PROT_WRITE if write else 0), offset=offset)
        finally:
            os.close(fd)

    def wait(self, seconds=10):
        return self.process.wait(seconds)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        if self.mounted():
            subprocess.run(["fusermount3", "-u", "-z", self.path], check=False)
        if kind is not None:
            print("log of zbig-fuse:\n" + self.log())


def is_mounted(path):
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        return any(line.split()[4] == path for line in f)


def resident(mapping, length):
    """Which pages of a mapping are in memory: a list of booleans (mincore)."""
    pages = (length + PAGE - 1) // PAGE
    vector = (ctypes.c_ubyte * pages)()
    address = address_of(mapping)
    if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(length), vector) != 0:
        raise OSError(ctypes.get_errno(), "mincore")
    return [bool(v & 1) for v in vector]


def address_of(mapping):
    """Where a mapping begins; of a read-only one too."""
    if not isinstance(mapping, mmap.mmap):
        raise TypeError
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    except TypeError:
        view = ctypes.py_object(mapping)
        buffer = (ctypes.c_ssize_t * 16)()  # Py_buffer begins with its address
        ctypes.pythonapi.PyObject_GetBuffer(view, ctypes.byref(buffer), 0)
        address = buffer[0]
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))
        return address & (2 ** 64 - 1)


class Holder:
    """Another process that has the device mapped, and reads and writes it when told to."""

    def __init__(self, front, length, write=True, lock=False):
        to_child, to_parent = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self.serve(front, length, write, lock, to_child[0], to_parent[1])
        os.close(to_child[0])
        os.close(to_parent[1])
        self.requests = os.fdopen(to_child[1], "w")
        self.replies = os.fdopen(to_parent[0], "r")
        assert self.replies.readline() == "ready\n"

    @staticmethod
    def serve(front, length, write, lock, requests, replies):
        try:
            mapping = front.map(length, write=write)
            if lock and libc.mlock(ctypes.c_void_p(address_of(mapping)),
                                   ctypes.c_size_t(length)) != 0:
                raise OSError(ctypes.get_errno(), "mlock")
            with os.fdopen(requests) as requests, os.fdopen(replies, "w") as replies:
                print("ready", file=replies, flush=True)
                for line in requests:
                    op, offset, value = json.loads(line)
                    answer = None
                    if op == "read":
                        answer = mapping[offset:offset + value].hex()
                    elif op == "write":
                        mapping[offset:offset + len(value) // 2] = bytes.fromhex(value)
                    elif op == "sync":
                        mapping.flush()
                    print(json.dumps(answer), file=replies, flush=True)
        finally:
            os._exit(0)

    def ask(self, op, offset=0, value=0, seconds=30):
        print(json.dumps([op, offset, value]), file=self.requests, flush=True)
        if not select.select([self.replies], [], [], seconds)[0]:
            raise AssertionError("no answer to %s in %d s" % (op, seconds))
        return json.loads(self.replies.readline())

    def read(self, offset, length):
        return bytes.fromhex(self.ask("read", offset, length))

    def write(self, offset, data):
        self.ask("write", offset, data.hex())

    def sync(self):
        self.ask("sync")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.requests.close()
        self.replies.close()
