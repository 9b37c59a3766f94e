#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""What the offline verbs promise: keys of JSON, sizes, moments, sparse files, transactions that are
not made, and a bar on a terminal.

    verbs_test.py                on a FileStorage
    verbs_test.py ENV [CONF]     through a real ZEO server of a peer environment, the same
"""
import datetime
import os
import pty
import re
import select
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from zbigtest import ZBIG, MiB, Report, Scratch, zbig, zbig_ok  # noqa: E402
from zeoserver import ZeoServer  # noqa: E402

report = Report()


def tid_of(result):
    """The tid that a writing verb prints."""
    said = result.text.strip()
    report.true("a tid", re.fullmatch("[0-9a-f]{16}", said), said)
    return said


def test_create_and_list(url):
    first = tid_of(zbig_ok("create", url, "/a", "--size", "1M", "-m", "makes /a", "--user", "ann"))
    tid_of(zbig_ok("create", url, "/site/m", "--dtype", "f8", "--shape", "10,20"))
    tid_of(zbig_ok("create", url, "/site/raw", "--raw", "--size", 5000, "--block-size", "4K"))
    other = url + "&wait_timeout=20" if "://" in url else "file://" + url
    tid_of(zbig_ok("create", other, "/site/with space/\u00fc", "--size", 1))
    rows = {v["path"]: v for v in zbig_ok("ls", url, "--json").json()}
    report.equal("paths", sorted(rows), ["/a", "/site/m", "/site/raw", "/site/with space/\u00fc"])
    report.equal("keys of an array", list(rows["/site/m"]),
                 ["path", "oid", "kind", "blksize", "size", "blocks", "stored_bytes", "tid",
                  "dtype", "shape", "order"])
    report.equal("an array", [rows["/site/m"][k] for k in (
        "kind", "size", "dtype", "shape", "order", "blksize", "blocks", "stored_bytes")],
                 ["ZBigArray", 1600, "<f8", [10, 20], "C", 2 * MiB, 0, 0])
    report.equal("keys of a bare file", list(rows["/site/raw"]),
                 ["path", "oid", "kind", "blksize", "size", "blocks", "stored_bytes", "tid"])
    report.equal("a bare file", [rows["/site/raw"][k] for k in ("kind", "size", "blocks")],
                 ["ZBigFile", 8192, 1])
    report.equal("tid of /a", rows["/a"]["tid"], first)
    report.equal("oid: finds it", zbig_ok("info", url, "oid:" + rows["/a"]["oid"], "--json").json()
                 ["size"], MiB)
    report.true("a table for people", "/site/with space/\u00fc" in zbig_ok("ls", url).text)
    former = zbig_ok("ls", url, "--at", first, "--json").json()
    report.equal("ls of a former state", [v["path"] for v in former], ["/a"])
    log = zbig_ok("log", url, "/a", "--json").json()
    report.equal("keys of log", list(log[0]),
                 ["tid", "time", "user", "description", "extents", "bytes"])
    report.equal("log of a creation", [log[0][k] for k in ("tid", "user", "description", "extents",
                                                           "bytes")],
                 [first, "ann", "makes /a", [], 0])


def test_import_and_export(url, folder):
    """Bytes go in and come out where that was said; what is equal makes no transaction."""
    path = os.path.join(folder, "file")
    with open(path, "wb") as f:
        f.write(b"0123456789")
    one = tid_of(zbig_ok("import", url, "/a", path, "--offset", 100, "-m", "ten", "--user", "bob"))
    report.equal("the same again", zbig_ok("import", url, "/a", path, "--offset", 100).text,
                 "nothing changed\n")
    two = tid_of(zbig_ok("import", url, "/a", "-", "--offset", "1000", stdin=b"piped"))
    with open(path, "rb") as f:
        f.seek(7)
        report.equal("what is left of standard input", zbig_ok(
            "import", url, "/a", "-", "--offset", 2000, stdin=f.read()).status, 0)
    report.equal("all", zbig_ok("export", url, "/a").out,
                 bytes(100) + b"0123456789" + bytes(890) + b"piped" + bytes(995) + b"789" +
                 bytes(MiB - 2003))
    report.equal("a part", zbig_ok("export", url, "/a", "--offset", 105, "--length", 3).out, b"567")
    report.equal("up to the end", len(zbig_ok("export", url, "/a", "--offset", MiB - 5).out), 5)
    report.equal("nothing", zbig_ok("export", url, "/a", "--offset", MiB).out, b"")
    report.equal("before", zbig_ok("export", url, "/a", "--at", one, "--offset", 1000, "--length",
                                   5).out, bytes(5))
    report.equal("diff", zbig_ok("diff", url, "/a", one, two, "--json").json(),
                 [{"offset": 1000, "length": 5}])
    report.equal("diff the other way", zbig_ok("diff", url, "/a", two, one, "--json").json(),
                 [{"offset": 1000, "length": 5}])
    report.equal("no diff", zbig_ok("diff", url, "/a", one, one, "--json").json(), [])
    entry = [t for t in zbig_ok("log", url, "/a", "--json").json() if t["tid"] == one][0]
    report.equal("log of an import",
                 [entry[k] for k in ("user", "description", "extents", "bytes")],
                 ["bob", "ten", [{"offset": 100, "length": 10}], 10])
    report.equal("an empty file", zbig_ok("import", url, "/a", "/dev/null").text,
                 "nothing changed\n")
    return one, two


def test_formats(url):
    for fmt in ("ZBlk0", "ZBlk1"):
        zbig_ok("create", url, "/fmt/" + fmt, "--size", "4M")
        zbig_ok("import", url, "/fmt/" + fmt, "-", "--format", fmt, stdin=b"x" * 10000)
        formats = zbig_ok("info", url, "/fmt/" + fmt, "--json").json()["formats"]
        report.equal(fmt, formats, {"ZBlk0": int(fmt == "ZBlk0"), "ZBlk1": int(fmt == "ZBlk1")})
    zbig_ok("create", url, "/fmt/env", "--size", "4M")
    zbig_ok("import", url, "/fmt/env", "-", stdin=b"x", env={"WENDELIN_CORE_ZBLK_FMT": "ZBlk1"})
    report.equal("of the environment",
                 zbig_ok("info", url, "/fmt/env", "--json").json()["formats"]["ZBlk1"], 1)


def test_moments(url, one, two):
    """Every form of WHEN leads to the state that it names."""
    times = {t["tid"]: t["time"] for t in zbig_ok("log", url, "--json").json()}

    def piped(when):
        return zbig_ok("export", url, "/a", "--at", when, "--offset", 1000, "--length", 5).out

    report.equal("the time of one", piped(times[one]), bytes(5))
    report.equal("the time of two", piped(times[two]), b"piped")
    report.equal("head", piped("head"), b"piped")
    report.equal("an age", zbig("export", url, "/a", "--at", "2h").status, 4)
    report.equal("no age", piped("0s"), b"piped")
    report.equal("tomorrow", piped("2200-01-01"), b"piped")
    moment = datetime.datetime.fromisoformat(times[one].replace("Z", "+00:00"))
    east = moment.astimezone(datetime.timezone(datetime.timedelta(hours=5, minutes=30)))
    report.equal("another zone", piped(east.isoformat()), bytes(5))
    report.equal("a tid between two", piped("%016x" % (int(two, 16) - 1)), bytes(5))

    def tids(*options):
        return [t["tid"] for t in zbig_ok("log", url, "/a", "--json", *options).json()]

    everything = tids()
    report.equal("-n", tids("-n", 1), everything[:1])
    report.equal("-n 0", tids("-n", 0), [])
    report.equal("--since a tid", tids("--since", two), everything[:everything.index(two) + 1])
    report.equal("--since its time", tids("--since", times[two]),
                 everything[:everything.index(two) + 1])
    report.equal("--since an hour", tids("--since", "1h"), everything)
    whole = zbig_ok("log", url, "--json").json()
    report.equal("newest first", [t["tid"] for t in whole],
                 sorted([t["tid"] for t in whole], reverse=True))
    report.equal("the log of all names the volume",
                 [t["extents"] for t in whole if t["tid"] == two],
                 [[{"offset": 1000, "length": 5, "volume": "/a"}]])


def test_sparse(url, folder):
    """Holes stay holes on the way out and in, whatever the size."""
    target = os.path.join(folder, "sparse")
    zbig_ok("create", url, "/huge", "--size", "1T")
    zbig_ok("import", url, "/huge", "-", "--offset", 3 << 38, stdin=b"here")
    started = time.monotonic()
    zbig_ok("export", url, "/huge", "-o", target)
    status = os.stat(target)
    report.equal("size of a sparse file", status.st_size, 1 << 40)
    report.true("disk space of a sparse file", status.st_blocks * 512 < MiB, status.st_blocks)
    with open(target, "rb") as f:
        f.seek(3 << 38)
        report.equal("its data", f.read(5), b"here\0")
    zbig_ok("create", url, "/huge2", "--size", "1T")
    zbig_ok("import", url, "/huge2", target)
    report.equal("import of a sparse file",
                 zbig_ok("info", url, "/huge2", "--json").json()["blocks"], 1)
    # A hole of the file hides what the volume has.
    with open(target, "r+b") as f:
        f.truncate(1 << 30)
        f.truncate(1 << 40)
    zbig_ok("import", url, "/huge2", target)
    report.equal("zeros from a hole", zbig_ok("export", url, "/huge2", "--offset", 3 << 38,
                                              "--length", 4).out, bytes(4))
    report.true("in no time", time.monotonic() - started < 20)
    os.unlink(target)
    with open(target, "wb") as f:
        subprocess.run([ZBIG, "export", url, "/huge"], stdout=f, check=True)
    report.true("redirected to a file", os.stat(target).st_size == 1 << 40 and
                os.stat(target).st_blocks * 512 < MiB, os.stat(target))
    os.unlink(target)
    zbig_ok("create", url, "/bare", "--raw", "--block-size", 4096)
    with open(target, "wb") as f:
        f.write(b"start")
        f.truncate(100000)
    zbig_ok("import", url, "/bare", target)
    report.equal("a bare file is as long as what was put in", zbig_ok("export", url, "/bare").out,
                 b"start".ljust(25 * 4096, b"\0"))


def test_output_files(url, folder):
    real, link = os.path.join(folder, "real"), os.path.join(folder, "link")
    with open(real, "wb") as f:
        f.write(b"old and longer than what comes" * 1000)
    os.symlink(real, link)
    zbig_ok("export", url, "/a", "-o", link, "--length", 10)
    report.true("a link stays one", os.path.islink(link))
    report.equal("and what it leads to is replaced", os.path.getsize(real), 10)
    os.mkfifo(os.path.join(folder, "fifo"))
    with subprocess.Popen(["cat", os.path.join(folder, "fifo")], stdout=subprocess.PIPE) as reader:
        zbig_ok("export", url, "/a", "-o", os.path.join(folder, "fifo"), "--offset", 100,
                "--length", 10)
        report.equal("into a pipe", reader.stdout.read(), b"0123456789")
    zbig_ok("export", url, "/a", "-o", "/dev/null")


def test_progress(folder):
    """A bar on a terminal for what takes over a second, and it is wiped."""
    url = os.path.join(folder, "Data.fs")
    zbig_ok("create", url, "/slow", "--size", "64M")
    zbig_ok("import", url, "/slow", "-", stdin=b"x" * (64 * MiB))
    main, terminal = pty.openpty()
    reader, writer = os.pipe()
    with subprocess.Popen([ZBIG, "export", url, "/slow"], stdout=writer, stderr=terminal) as child:
        os.close(writer)
        os.close(terminal)
        size, seen = 0, b""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            ready = select.select([reader, main], [], [], 1)[0]
            if main in ready:
                try:
                    seen += os.read(main, 4096)
                except OSError:  # the other end is closed
                    ready.remove(main)
            if reader in ready:
                part = os.read(reader, 1 << 19)
                if not part:
                    break
                size += len(part)
                time.sleep(0.015)  # slow enough for a bar
    os.close(reader)
    report.equal("all came", size, 64 * MiB)
    report.true("a bar", b"export /slow" in seen and b"%" in seen and b"MiB" in seen, seen[-300:])
    report.true("wiped", seen.endswith(b"\r\x1b[K"), seen[-30:])
    quiet = zbig("export", url, "/slow")
    report.equal("none elsewhere", quiet.err, b"")


def run(url, folder):
    test_create_and_list(url)
    one, two = test_import_and_export(url, folder)
    test_formats(url)
    test_moments(url, one, two)
    test_sparse(url, folder)
    report.equal("check", zbig("check", url).status, 0)


def main():
    with Scratch() as folder:
        if len(sys.argv) > 1:
            with ZeoServer(os.path.join(folder, "zeo"), *sys.argv[1:]) as server:
                run(server.url, folder)
        else:
            url = os.path.join(folder, "verbs.fs")
            run(url, folder)
            test_output_files(url, folder)
            test_progress(folder)
    report.done()


if __name__ == "__main__":
    main()
