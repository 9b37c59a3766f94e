# SPDX-License-Identifier: BSD-3-Clause
"""What the tests of the server share: starting nbdkit with the plugin, its control socket, and
libnbd, whose Python bindings may belong to another Python than the one that CTest runs.
"""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from zbigtest import BIN, DATA, Report, Scratch, sha256, skip, zbig_ok  # noqa: E402,F401

try:
    import nbd
except ImportError:
    SYSTEM = "/usr/bin/python3"
    if sys.executable != SYSTEM and os.path.exists(SYSTEM):
        os.execv(SYSTEM, [SYSTEM, "-B"] + sys.argv)
    skip("no Python bindings of libnbd (package python3-libnbd)")

PLUGIN = os.path.join(BIN, "nbdkit-zbig-plugin.so")
PAGE = 4096


def require(*commands):
    for command in commands:
        if shutil.which(command) is None:
            skip("no command " + command)


require("nbdkit")


class Server:
    """nbdkit with the plugin, in a folder of its own: `with Server(folder, url) as server`."""

    def __init__(self, folder, url, *parameters, control=True):
        self.folder = folder
        self.socket = os.path.join(folder, "nbd.sock")
        self.control_path = os.path.join(folder, "control.sock")
        self.log_path = os.path.join(folder, "server.log")
        self.arguments = ["nbdkit", "-f", "-U", self.socket, "-P", os.path.join(folder, "pid"),
                          PLUGIN, url]
        if control:
            self.arguments.append("control=" + self.control_path)
        self.arguments += parameters
        self.start()

    def start(self):
        for name in ("nbd.sock", "pid"):
            if os.path.exists(os.path.join(self.folder, name)):
                os.remove(os.path.join(self.folder, name))
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.arguments, stdin=subprocess.DEVNULL, stderr=log,
                                            stdout=log)
        deadline = time.monotonic() + 30
        while not os.path.exists(os.path.join(self.folder, "pid")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("the server did not start: " + self.log())
            time.sleep(0.01)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def stop(self):
        """Ends it as an administrator does; gives its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self):
        self.process.kill()
        self.process.wait(60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def uri(self, export):
        return "nbd+unix:///%s?socket=%s" % (urllib.parse.quote(export, safe=""), self.socket)

    def connect(self, export):
        handle = nbd.NBD()
        handle.add_meta_context("base:allocation")
        handle.set_export_name(export)
        handle.connect_unix(self.socket)
        return handle

    def read(self, export, offset=0, length=None):
        handle = self.connect(export)
        size = handle.get_size()
        out = bytearray()
        end = size if length is None else offset + length
        while offset < end:
            step = min(32 << 20, end - offset)
            out += handle.pread(step, offset)
            offset += step
        handle.shutdown()
        return bytes(out)

    def control(self, op, **members):
        """One request; gives the reply."""
        with Control(self.control_path) as control:
            return control.ask(json.dumps(dict(members, op=op)))

    def ok(self, op, **members):
        reply = self.control(op, **members)
        assert reply["ok"], (op, members, reply)
        return reply

    def attach(self, device, export, volume, **members):
        request = {"at": "head", "size": 0, "read_only": False}
        if not members.get("read_only"):
            request["overlay"] = os.path.join(self.folder, "overlay-" + device)
        request.update(members)
        return self.ok("attach", device=device, export=export, volume=volume, **request)

    def rss_kib(self):
        with open("/proc/%d/status" % self.process.pid, encoding="ascii") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


class Control:
    """A connection to the control socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.reader = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.reader.close()
        self.socket.close()

    def ask(self, line):
        self.socket.sendall((line if isinstance(line, bytes) else line.encode()) + b"\n")
        return json.loads(self.reader.readline())


def extents(handle, size, offset=0):
    """Block status of a connection: a list of (offset, length, type), neighbours joined."""
    result = []

    def add(_context, at, entries, _error):
        for length, kind in zip(entries[::2], entries[1::2]):
            if result and result[-1][2] == kind and result[-1][0] + result[-1][1] == at:
                result[-1] = (result[-1][0], result[-1][1] + length, kind)
            else:
                result.append((at, length, kind))
            at += length
        return 0

    while offset < size:
        handle.block_status(min(size - offset, 1 << 30), offset, add)
        offset = result[-1][0] + result[-1][1]
    return result


def data_extents(handle):
    return [(offset, length) for offset, length, kind in extents(handle, handle.get_size())
            if kind == 0]


def error_of(action):
    """The name of the errno with which libnbd fails ("EIO"), or None."""
    try:
        action()
    except nbd.Error as error:
        return error.errno
    return None


def database(folder, name="py3-zblk0"):
    """A copy of a database of tests/data/original, to write to; gives its path."""
    path = os.path.join(folder, "Data.fs")
    shutil.copyfile(os.path.join(DATA, "original", name, "Data.fs"), path)
    return path


def manifest(name="py3-zblk0"):
    with open(os.path.join(DATA, "original", name, "manifest.json"), encoding="utf-8") as f:
        return json.load(f)
