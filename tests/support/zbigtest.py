# SPDX-License-Identifier: BSD-3-Clause
"""What tests written in Python share: where things are, running zbig, skipping, and a report.

CTest passes where the programs are (ZBIG_BIN); the Python peers are in $PEERS, or .peers of the
source tree. A test that cannot run on this machine prints `SKIP: reason` and exits with 77, which
CTest counts as skipped and `./run test` lists.
"""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# An agent that this user may have running is nobody's business here.
os.environ.setdefault("ZBIG_SOCKET", "/nonexistent/zbigd.sock")
BIN = os.environ.get("ZBIG_BIN", os.path.join(ROOT, "build", "bin"))
ZBIG = os.path.join(BIN, "zbig")
DATA = os.path.join(ROOT, "tests", "data")
ZPEER = os.path.join(ROOT, "tests", "peers", "zpeer.py")
PEERS = os.environ.get("PEERS", os.path.join(ROOT, ".peers"))

MiB = 1 << 20


def skip(reason):
    print("SKIP: " + reason, flush=True)
    sys.exit(77)


def python_of(environment):
    """The Python of a peer environment ("py3", "py2"); skips the test where it is not there."""
    python = os.path.join(PEERS, environment, "bin", "python")
    if not os.path.exists(python):
        skip("no Python peer %s in %s (./run deps sets it up)" % (environment, PEERS))
    return python


class Scratch:
    """A temporary folder, removed at the end: with Scratch() as folder."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="zbig-test-")
        return self.path

    def __exit__(self, *_):
        subprocess.run(["chmod", "-R", "u+rwx", self.path], check=False)
        shutil.rmtree(self.path, ignore_errors=True)


class Result:
    def __init__(self, arguments, status, out, err):
        self.arguments, self.status, self.out, self.err = arguments, status, out, err

    @property
    def text(self):
        return self.out.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.out)

    def __str__(self):
        return "zbig %s\n  status %d\n  stdout %r\n  stderr %s" % (
            " ".join(map(str, self.arguments)), self.status, self.out[:2000],
            self.err.decode("utf-8", "replace")[:4000])


def zbig(*arguments, stdin=None, env=None, timeout=120, **options):
    """Runs zbig to its end, whatever its status."""
    done = subprocess.run([ZBIG, *map(str, arguments)], input=stdin, capture_output=True,
                          timeout=timeout, check=False,
                          env=dict(os.environ, **env) if env else None, **options)
    return Result(arguments, done.returncode, done.stdout, done.stderr)


def zbig_ok(*arguments, **options):
    """Runs zbig, which must succeed."""
    result = zbig(*arguments, **options)
    if result.status != 0:
        raise AssertionError("failed: %s" % result)
    return result


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Report:
    """Counts what was compared; `done` exits with the verdict."""

    def __init__(self):
        self.compared, self.failures = 0, []

    def equal(self, what, got, expected):
        self.compared += 1
        if got != expected:
            self.failures.append("%s: got %r, expected %r" % (what, got, expected))
            print("FAILED: " + self.failures[-1][:2000], flush=True)
        return got == expected

    def true(self, what, holds, detail=""):
        self.compared += 1
        if not holds:
            self.failures.append("%s %s" % (what, detail))
            print("FAILED: %s %s" % (what, str(detail)[:2000]), flush=True)
        return holds

    def done(self):
        print("%d comparisons, %d failures" % (self.compared, len(self.failures)))
        if self.compared == 0:
            print("nothing was compared")
        sys.exit(1 if self.failures or self.compared == 0 else 0)
